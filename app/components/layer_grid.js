// All heads of a layer as small pictures on one canvas: destinations down, sources across. Hovering reads the same edge
// in every head; a click or Enter opens one. Tokens reach the page through textContent only.
const GAP = 12, LABEL = 17, FOCUS = "#e8590c";

function decoded(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return bytes;
}

export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const find = (name) => root.querySelector(name);
  const { heads, size, by, tokens } = data;
  const canvas = find(".plot canvas");
  const cells = decoded(data.cells), per = size * size;
  const view = (root.view ??= {});
  view.cursor = heads.indexOf(data.chosen) < 0 ? 0 : heads.indexOf(data.chosen);
  let box = { columns: 1, side: 100 }, hovered = null, pictures = null, drawnFor = "";

  const isFocused = () => canvas.matches(":focus");
  const corner = (head) => [(head % box.columns) * (box.side + GAP) + 2, Math.floor(head / box.columns) * (box.side + LABEL + GAP) + LABEL];
  const value = (head, row, column) => (cells[head * per + row * size + column] / 255) ** 2 * data.most;

  // Painted once for a theme; hovering only lays the cross over them.
  function paint(theme) {
    const table = rampTable(theme.ramps.magnitude);
    const packed = new Uint32Array(256), bytes = new Uint8Array(packed.buffer);
    table.forEach((colour, i) => bytes.set([...colour, 255], 4 * i));
    pictures = heads.map((_, head) => {
      const picture = document.createElement("canvas");
      picture.width = picture.height = size;
      const image = new ImageData(size, size), pixels = new Uint32Array(image.data.buffer);
      for (let row = 0; row < size; row++)
        for (let column = 0; column < size; column++) {
          const level = cells[head * per + row * size + column];
          if (level || column <= row) pixels[row * size + column] = packed[level]; // what a mask hides stays empty
        }
      picture.getContext("2d").putImageData(image, 0, 0);
      return picture;
    });
  }

  function draw() {
    const theme = themeOf(canvas);
    if (drawnFor !== String(theme.dark)) paint(theme);
    drawnFor = String(theme.dark);
    const room = find(".plot").clientWidth || 400;
    const fitting = Math.max(1, Math.floor((room + GAP) / (104 + GAP)));
    box.columns = Math.min(heads.length, fitting);
    box.side = Math.max(60, Math.min(170, Math.floor((room - 4 - (box.columns - 1) * GAP) / box.columns)));
    const rows = Math.ceil(heads.length / box.columns), ratio = window.devicePixelRatio || 1;
    const width = box.columns * (box.side + GAP) - GAP + 4, height = rows * (box.side + LABEL + GAP);
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.dataset.geometry = JSON.stringify({ ...box, gap: GAP, label: LABEL });
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.imageSmoothingEnabled = size > box.side;
    ctx.font = `12px ${getComputedStyle(canvas).fontFamily}`;
    ctx.textBaseline = "alphabetic";
    heads.forEach((name, head) => thumb(ctx, theme, name, head));
  }

  function thumb(ctx, theme, name, head) {
    const [x, y] = corner(head), side = box.side;
    ctx.fillStyle = theme.text;
    const read = hovered ? `  ${value(head, hovered.row, hovered.column).toPrecision(2)}` : "";
    ctx.font = ctx.font.replace(/^(bold )?/, name === data.chosen ? "bold " : "");
    ctx.fillText(name + read, x, y - 5);
    ctx.drawImage(pictures[head], x, y, side, side);
    const focused = isFocused() && head === view.cursor;
    ctx.strokeStyle = name === data.chosen || focused ? FOCUS : "#88888866";
    ctx.lineWidth = focused ? 3 : name === data.chosen ? 2 : 1;
    ctx.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1);
    if (!hovered) return;
    const cell = side / size;
    ctx.strokeStyle = FOCUS;
    ctx.lineWidth = 1;
    ctx.strokeRect(x + hovered.column * cell - 1.5, y + hovered.row * cell - 1.5, cell + 3, cell + 3);
  }

  function placeAt(event) {
    const frame = canvas.getBoundingClientRect();
    const x = event.clientX - frame.left - 2, y = event.clientY - frame.top;
    const across = Math.floor(x / (box.side + GAP)), down = Math.floor(y / (box.side + LABEL + GAP));
    const head = down * box.columns + across;
    if (across < 0 || across >= box.columns || head < 0 || head >= heads.length) return null;
    const share = [(y - down * (box.side + LABEL + GAP) - LABEL) / box.side, (x - across * (box.side + GAP)) / box.side];
    const [row, column] = share.map((one) => Math.floor(one * size));
    return { head, row, column, inside: share.every((one) => one >= 0 && one < 1) };
  }

  const span = (cell) => {
    const first = cell * by, last = Math.min(tokens.length, first + by) - 1;
    return [element("span", `${first === last ? first : `${first}–${last}`} `), element("b", tokens.slice(first, last + 1).map(named).join(""))];
  };

  function read() {
    const out = find(".readout");
    canvas.dataset.edge = hovered ? `${hovered.row}:${hovered.column}` : "";
    canvas.dataset.head = heads[view.cursor];
    if (hovered) {
      const at = value(hovered.head, hovered.row, hovered.column).toPrecision(3);
      out.replaceChildren(element("span", `${heads[hovered.head]}: destination `), ...span(hovered.row), element("span", " reads source "), ...span(hovered.column), element("span", ` ${at}; the same place in the other heads beside their names`));
    } else if (isFocused()) out.replaceChildren(element("b", heads[view.cursor]), element("span", ": Enter opens it, arrow keys move"));
    else out.replaceChildren(element("span", "Point at a picture to read one edge in every head; click it to open that head. With the keyboard: Tab, arrows, Enter."));
  }

  const show = () => (draw(), read());
  const open = (head) => heads[head] !== data.chosen && setTriggerValue("open", heads[head]);
  canvas.setAttribute("aria-label", `${data.label}. Arrow keys move along the heads, Enter opens one.`);
  canvas.onpointermove = (event) => {
    const place = placeAt(event), next = place?.inside ? place : null;
    if (JSON.stringify(next) === JSON.stringify(hovered)) return;
    hovered = next;
    show();
  };
  canvas.onpointerleave = () => {
    hovered = null;
    show();
  };
  canvas.onclick = (event) => {
    const place = placeAt(event);
    if (place) open(place.head);
  };
  canvas.onfocus = canvas.onblur = show;
  canvas.onkeydown = (event) => {
    const step = { ArrowUp: -box.columns, ArrowDown: box.columns, ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const next = view.cursor + step;
      if (next >= 0 && next < heads.length) view.cursor = next;
      hovered = null;
      show();
    } else if (event.key === "Enter" || event.key === " ") open(view.cursor);
    else return;
    event.preventDefault();
  };

  function legend() {
    const ctx = find(".scale").getContext("2d"), table = rampTable(themeOf(canvas).ramps.magnitude);
    for (let x = 0; x < 120; x++) {
      ctx.fillStyle = `rgb(${table[Math.round((255 * x) / 119)].join()})`;
      ctx.fillRect(x, 0, 1, 10);
    }
    find(".low").textContent = "0";
    find(".high").textContent = `${data.most.toPrecision(3)} (square root)`;
    find(".note").textContent = `Destinations down, sources across.${by > 1 ? ` A cell is the largest of ${by} × ${by} tokens.` : ""}`;
  }

  legend();
  show();
  return watch(find(".plot"), () => {
    legend();
    show();
  });
}
