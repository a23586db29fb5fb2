// A layer x head map on one canvas. Hovering and the arrow keys read a cell; a click or Enter opens its head.
const MARGIN = { left: 44, top: 36 };
const MARK = "#e8590c";

export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const canvas = root.querySelector(".plot canvas");
  const view = (root.view ??= { cursor: null });
  const { layers, heads, values } = data;
  const at = (cell) => cell.layer * heads + cell.head;
  const inside = (cell) => cell && cell.layer >= 0 && cell.layer < layers && cell.head >= 0 && cell.head < heads;
  const filter = JSON.stringify(data.dim);
  if (!inside(view.cursor) || (filter !== view.filter && data.dim[at(view.cursor)])) view.cursor = data.cursor;
  view.filter = filter;

  let box = { w: 0, h: 0 };
  let hovered = null;

  function draw() {
    const theme = themeOf(canvas);
    const table = rampTable(theme.ramps[data.signed ? "signed" : "magnitude"]);
    const room = root.querySelector(".plot").clientWidth || 400;
    box.w = Math.max(3, Math.min(44, Math.floor((room - MARGIN.left - 2) / heads)));
    box.h = Math.max(5, Math.min(24, Math.floor(560 / layers)));
    const width = MARGIN.left + box.w * heads + 2, height = MARGIN.top + box.h * layers + 2;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.dataset.geometry = JSON.stringify({ left: MARGIN.left, top: MARGIN.top, ...box });
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    ctx.fillStyle = theme.text;
    drawAxes(ctx);
    const gap = Math.min(box.w, box.h) > 6 ? 1 : 0;
    for (let layer = 0; layer < layers; layer++)
      for (let head = 0; head < heads; head++) drawCell(ctx, { layer, head }, table, gap);
    for (const cell of [hovered, isFocused() ? view.cursor : null]) if (cell) outline(ctx, cell, theme.text);
  }

  const isFocused = () => canvas.matches(":focus");

  function drawAxes(ctx) {
    const every = (size, least) => [1, 2, 5, 10, 20].find((step) => step * size >= least) ?? 50;
    ctx.textAlign = "center";
    ctx.textBaseline = "alphabetic";
    for (let head = 0, step = every(box.w, 18); head < heads; head += step)
      ctx.fillText(String(head), MARGIN.left + (head + 0.5) * box.w, MARGIN.top - 5);
    ctx.fillText("head", MARGIN.left + (heads * box.w) / 2, 13);
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    for (let layer = 0, step = every(box.h, 13); layer < layers; layer += step)
      ctx.fillText(String(layer), MARGIN.left - 6, MARGIN.top + (layer + 0.5) * box.h);
    ctx.save();
    ctx.translate(9, MARGIN.top + (layers * box.h) / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.textAlign = "center";
    ctx.fillText("layer", 0, 0);
    ctx.restore();
  }

  function drawCell(ctx, cell, table, gap) {
    const x = MARGIN.left + cell.head * box.w, y = MARGIN.top + cell.layer * box.h;
    const w = box.w - gap, h = box.h - gap, value = values[at(cell)];
    ctx.globalAlpha = data.dim[at(cell)] ? 0.18 : 1;
    if (value === null) {
      if (gap) {
        ctx.strokeStyle = "#88888850";
        ctx.setLineDash([2, 2]);
        ctx.strokeRect(x + 0.5, y + 0.5, w - 1, h - 1);
        ctx.setLineDash([]);
      }
    } else {
      const share = (value - data.low) / (data.high - data.low || 1);
      ctx.fillStyle = `rgb(${table[Math.round(255 * Math.max(0, Math.min(1, share)))].join()})`;
      ctx.fillRect(x, y, w, h);
    }
    const mark = data.marks[at(cell)];
    if (mark === 2) {
      ctx.strokeStyle = MARK;
      ctx.lineWidth = 2;
      ctx.strokeRect(x + 1, y + 1, w - 2, h - 2);
      ctx.lineWidth = 1;
    } else if (mark === 1) {
      ctx.fillStyle = MARK;
      ctx.beginPath();
      ctx.arc(x + w / 2, y + h / 2, Math.max(1.2, Math.min(3, h / 4)), 0, 7);
      ctx.fill();
    }
    ctx.globalAlpha = 1;
  }

  function outline(ctx, cell, colour) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = 2;
    ctx.strokeRect(MARGIN.left + cell.head * box.w - 0.5, MARGIN.top + cell.layer * box.h - 0.5, box.w, box.h);
    ctx.lineWidth = 1;
  }

  function cellAt(event) {
    const frame = canvas.getBoundingClientRect();
    const cell = {
      layer: Math.floor((event.clientY - frame.top - MARGIN.top) / box.h),
      head: Math.floor((event.clientX - frame.left - MARGIN.left) / box.w),
    };
    return inside(cell) ? cell : null;
  }

  function read(cell) {
    const readout = root.querySelector(".readout");
    readout.replaceChildren();
    if (!cell) {
      readout.textContent = data.hint;
      return;
    }
    const name = document.createElement("b");
    name.textContent = data.prefix + `${cell.layer}.${cell.head}`;
    readout.append(name, data.notes[at(cell)]);
  }

  const open = (cell) => setTriggerValue("open", `${cell.layer}.${cell.head}`);

  canvas.setAttribute("aria-label", `${data.label}. Arrow keys move, Enter opens the head.`);
  canvas.onpointermove = (event) => {
    const cell = cellAt(event);
    if (JSON.stringify(cell) === JSON.stringify(hovered)) return;
    hovered = cell;
    draw();
    read(cell);
  };
  canvas.onpointerleave = () => {
    hovered = null;
    draw();
    read(isFocused() ? view.cursor : null);
  };
  canvas.onclick = (event) => {
    const cell = cellAt(event);
    if (cell) open(cell);
  };
  canvas.onfocus = canvas.onblur = () => {
    draw();
    read(isFocused() ? view.cursor : null);
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      const next = { layer: view.cursor.layer + step[0], head: view.cursor.head + step[1] };
      if (inside(next)) view.cursor = next;
      draw();
      read(view.cursor);
    } else if (event.key === "Enter" || event.key === " ") open(view.cursor);
    else return;
    event.preventDefault();
  };

  function drawLegend() {
    const scale = root.querySelector(".scale").getContext("2d");
    const table = rampTable(themeOf(canvas).ramps[data.signed ? "signed" : "magnitude"]);
    for (let x = 0; x < 120; x++) {
      scale.fillStyle = `rgb(${table[Math.round((255 * x) / 119)].join()})`;
      scale.fillRect(x, 0, 1, 10);
    }
    root.querySelector(".low").textContent = data.low.toFixed(2);
    root.querySelector(".high").textContent = data.high.toFixed(2);
    root.querySelector(".full .text").textContent = data.verdict;
    root.querySelector(".item.full").hidden = !data.marks.includes(2);
    root.querySelector(".item.part").hidden = !data.marks.includes(1);
    root.querySelector(".item.none").hidden = !values.includes(null);
    root.querySelector(".item.dim").hidden = !data.dim.includes(true);
  }

  read(null);
  draw();
  drawLegend();
  const stop = watch(root.querySelector(".plot"), () => {
    draw();
    drawLegend();
  });
  return stop;
}
