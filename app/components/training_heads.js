// All heads of one kind of attention at one checkpoint. The scale is that of the whole training, so that colours of two
// checkpoints can be compared.
const ROOM = { left: 42, top: 34 };

function headsMap(canvas, { layers, widths, value, high, chosen, width }) {
  const theme = themeOf(canvas);
  const table = rampTable(theme.ramps.magnitude);
  const heads = Math.max(...widths);
  const w = Math.max(8, Math.min(52, Math.floor((width - ROOM.left - 4) / heads)));
  const h = Math.max(8, Math.min(34, Math.floor(330 / layers)));
  const size = [ROOM.left + w * heads + 3, ROOM.top + h * layers + 3], ratio = window.devicePixelRatio || 1;
  canvas.width = size[0] * ratio;
  canvas.height = size[1] * ratio;
  canvas.style.width = `${size[0]}px`;
  canvas.style.height = `${size[1]}px`;
  canvas.dataset.geometry = JSON.stringify({ left: ROOM.left, top: ROOM.top, w, h });
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = `11px ${getComputedStyle(canvas).fontFamily}`;
  ctx.fillStyle = theme.text;
  ctx.textBaseline = "middle";
  const every = (size, least) => [1, 2, 5, 10].find((one) => one * size >= least) ?? 20;
  ctx.textAlign = "center";
  ctx.fillText("head", ROOM.left + (heads * w) / 2, 8);
  for (let head = 0; head < heads; head += every(w, 16)) ctx.fillText(String(head), ROOM.left + (head + 0.5) * w, 24);
  ctx.textAlign = "right";
  for (let layer = 0; layer < layers; layer += every(h, 13)) ctx.fillText(String(layer), ROOM.left - 6, ROOM.top + (layer + 0.5) * h);
  ctx.save();
  ctx.translate(9, ROOM.top + (layers * h) / 2);
  ctx.rotate(-Math.PI / 2);
  ctx.textAlign = "center";
  ctx.fillText("layer", 0, 0);
  ctx.restore();
  ctx.textAlign = "center";
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < widths[layer]; head++) {
      const x = ROOM.left + head * w, y = ROOM.top + layer * h, score = value(layer, head);
      if (score === null) {
        ctx.strokeStyle = "#88888880";
        ctx.setLineDash([2, 2]);
        ctx.strokeRect(x + 1, y + 1, w - 3, h - 3);
        ctx.setLineDash([]);
      } else {
        const [r, g, b] = table[Math.round(255 * Math.max(0, Math.min(1, score / high)))];
        ctx.fillStyle = `rgb(${r},${g},${b})`;
        ctx.fillRect(x, y, w - 1, h - 1);
        if (w >= 30 && h >= 16) {
          ctx.fillStyle = 0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#ffffff" : "#14202e";
          ctx.fillText(score.toFixed(2).replace(/^0/, ""), x + w / 2, y + h / 2 + 0.5);
        }
      }
      if (layer === chosen.layer && head === chosen.head) {
        ctx.strokeStyle = "#e8590c";
        ctx.lineWidth = 2.5;
        ctx.strokeRect(x, y, w - 1, h - 1);
        ctx.lineWidth = 1;
      }
    }
  return { w, h };
}

function headAt(event, canvas, { w, h }, widths) {
  const frame = canvas.getBoundingClientRect();
  const layer = Math.floor((event.clientY - frame.top - ROOM.top) / h), head = Math.floor((event.clientX - frame.left - ROOM.left) / w);
  return layer >= 0 && layer < widths.length && head >= 0 && head < widths[layer] ? { layer, head } : null;
}

function paintScale(canvas) {
  const ctx = canvas.getContext("2d"), table = rampTable(themeOf(canvas).ramps.magnitude);
  for (let x = 0; x < canvas.width; x++) {
    ctx.fillStyle = `rgb(${table[Math.round((255 * x) / (canvas.width - 1))].join()})`;
    ctx.fillRect(x, 0, 1, canvas.height);
  }
}
