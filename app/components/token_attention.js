// One head on one prompt. Everything happens in the browser: hovering a token shows what it reads, a click locks it.
// Tokens reach the page through textContent only.
const BEST = 8;

// 16-bit fractions of the largest weight that can be, little-endian as every browser is.
function decode(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return Float32Array.from(new Uint16Array(bytes.buffer), (fraction) => fraction / 65535);
}

export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const find = (name) => root.querySelector(name);
  const n = data.tokens.length;
  const weights = decode(data.weights);
  const weighted = Boolean(data.weighted);
  const number = (share) => (weighted ? (share * data.scale).toPrecision(3) : share.toFixed(3));
  const same = root.view && root.view.text === JSON.stringify(data.tokens);
  const view = (root.view = same ? root.view : { ...root.view, text: JSON.stringify(data.tokens), token: data.start ?? n - 1, locked: false });
  view.direction ??= "reads";
  view.skip ??= false;
  const pairOf = (other) => (view.direction === "reads" ? [view.token, other] : [other, view.token]);
  const weight = (row, column) => weights[row * n + column];
  const shared = (other) => weight(...pairOf(other));

  const spans = data.tokens.map((token, i) => {
    const span = document.createElement("span");
    span.textContent = visible(token) + (/\n/.test(token) ? "\n" : "");
    span.dataset.i = i;
    span.setAttribute("role", "option");
    const mark = data.marks?.[i];
    if (mark) span.dataset.mark = visible(mark);
    span.title = `${i}: ${named(token)}${mark ? ` (${visible(mark)})` : ""}`;
    return span;
  });
  const tokens = find(".tokens");
  tokens.replaceChildren(...spans);
  find(".views").classList.toggle("large", n > 128);
  find(".views").classList.toggle("compact", Boolean(data.compact));
  find(".first-text").textContent = data.has_bos ? "shade without BOS" : "shade without the first token";
  find(".help").textContent = `Hover previews, click locks, Esc unlocks; arrow keys move along the tokens. Shade: square root of ${weighted ? "the weighted attention, of the largest shown" : "the attention"}.`;
  find(".skip-first").checked = view.skip;

  const shades = [];
  let before = -1;
  function shade() {
    const theme = themeOf(tokens);
    const all = spans.map((_, other) => (view.skip && other === 0 ? 0 : shared(other)));
    const most = view.skip || weighted || view.direction !== "reads" ? Math.max(...all, 1e-6) : 1;
    all.forEach((value, i) => {
      const shade = value < 0.004 * most ? "" : tint(Math.sqrt(value / most), theme);
      if (shades[i] !== shade) spans[i].style.background = shades[i] = shade;
    });
    for (const i of new Set([before, view.token])) {
      spans[i]?.classList.toggle("chosen", i === view.token);
      spans[i]?.setAttribute("aria-selected", i === view.token);
    }
    before = view.token;
    tokens.dataset.token = view.token;
    tokens.classList.toggle("locked", view.locked);
  }

  const tint = (share, theme) => (theme.dark ? `rgba(62,140,214,${(0.85 * share).toFixed(3)})` : `rgba(49,130,189,${(0.7 * share).toFixed(3)})`);

  function text(tag, content) {
    const element = document.createElement(tag);
    element.textContent = content;
    return element;
  }

  function list() {
    const theme = themeOf(tokens);
    const reads = view.direction === "reads";
    const position = text("span", `${reads ? "destination" : "source"} ${view.token} `);
    find(".readout").replaceChildren(position, text("b", named(data.tokens[view.token])), text("span", reads ? " reads" : " is read by"));
    const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => shared(b) - shared(a) || a - b);
    const rows = order.slice(0, data.compact ? BEST / 2 : BEST).filter((other) => shared(other) >= 0.0005);
    const longest = weighted && rows.length ? shared(rows[0]) : 1;
    find(".best").replaceChildren(
      ...rows.map((other) => {
        const row = text("li", "");
        const name = text("span", "");
        name.append(text("b", named(data.tokens[other])), text("small", ` ${other}${data.marks?.[other] ? ` ${visible(data.marks[other])}` : ""}`));
        row.append(text("span", number(shared(other))), name);
        if (data.ask) askable(row, pairOf(other).join());
        const colour = tint(0.7, theme), width = ((100 * shared(other)) / longest).toFixed(1);
        row.style.background = `linear-gradient(90deg, ${colour} ${width}%, transparent ${width}%)`;
        return row;
      }),
    );
  }

  // A row is an edge, which the page explains when it is clicked.
  function askable(row, edge) {
    row.tabIndex = 0;
    row.title = "Why, and what did it write? Click to see below";
    row.classList.add("ask");
    row.classList.toggle("picked", edge === view.edge);
    row.onclick = () => {
      view.edge = edge;
      for (const one of find(".best").children) one.classList.toggle("picked", one === row);
      asked();
      setTriggerValue("edge", edge);
    };
    row.onkeydown = (event) => {
      if (event.key === "Enter") row.click();
    };
  }

  // What is known of the edge here is said at once; the server explains it below.
  function asked() {
    const [query, key] = (view.edge ?? "").split(",").map(Number);
    if (!(query < n && key < n)) return find(".asked").replaceChildren();
    const share = number(weight(query, key));
    const order = weights.subarray(query * n, (query + 1) * n).reduce((above, one) => above + (one > weight(query, key)), 1);
    find(".asked").replaceChildren(
      text("span", `Edge: destination ${query} `), text("b", named(data.tokens[query])),
      text("span", ` reads source ${key} `), text("b", named(data.tokens[key])),
      text("span", ` with ${weighted ? "weighted " : ""}attention ${share}, its ${order === 1 ? "heaviest source" : `source number ${order}`}. Why, and what it wrote: below.`),
    );
    find(".asked").dataset.edge = view.edge;
  }

  // The matrix is painted once; the cross that follows the token lies on a canvas above it.
  const cell = Math.max(Math.min(1, 512 / n), Math.floor((n > 128 ? 512 : 330) / n));
  const scale = Math.min(cell, 24);
  function paint() {
    const cells = find(".cells");
    const palette = new Uint32Array(256), bytes = new Uint8Array(palette.buffer);
    rampTable(themeOf(tokens).ramps.magnitude).forEach((colour, i) => bytes.set([...colour, 255], 4 * i));
    cells.width = cells.height = n;
    const image = new ImageData(n, n), pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < n; row++) {
      let most = view.skip ? 1e-6 : 1;
      if (view.skip) for (let i = row * n + 1; i < (row + 1) * n; i++) most = Math.max(most, weights[i]);
      for (let i = row * n, column = 0; column < n; i++, column++) {
        const value = view.skip && column === 0 ? 0 : weights[i] / most;
        if (column <= row || weights[i] > 0) pixels[i] = palette[Math.round(255 * Math.min(1, value))]; // what a mask hides stays empty
      }
    }
    cells.getContext("2d").putImageData(image, 0, 0);
    cells.style.width = `${n * scale}px`;
    cells.style.imageRendering = scale >= 1 ? "pixelated" : "auto";
  }

  function cross() {
    const canvas = find(".cross");
    const size = Math.round(n * scale);
    canvas.width = canvas.height = size;
    const ctx = canvas.getContext("2d");
    ctx.strokeStyle = "#e8590c";
    ctx.lineWidth = 1.5;
    const place = Math.floor(view.token * scale), thick = Math.max(scale, 2);
    if (view.direction === "reads") ctx.strokeRect(0.75, place + 0.75, size - 1.5, thick - 1.5 || 1);
    else ctx.strokeRect(place + 0.75, 0.75, thick - 1.5 || 1, size - 1.5);
  }

  function show() {
    shade();
    list();
    cross();
  }

  function choose(i, locked = view.locked) {
    if (i === view.token && locked === view.locked) return;
    Object.assign(view, { token: i, locked });
    show();
  }

  const tokenAt = (event) => (event.target.dataset?.i === undefined ? null : Number(event.target.dataset.i));
  tokens.onpointerover = (event) => {
    const i = tokenAt(event);
    if (i !== null && !view.locked) choose(i);
  };
  tokens.onclick = (event) => {
    const i = tokenAt(event);
    if (i !== null) choose(i, !(view.locked && i === view.token));
  };
  tokens.onkeydown = (event) => {
    const goals = { ArrowLeft: view.token - 1, ArrowUp: view.token - 1, ArrowRight: view.token + 1, ArrowDown: view.token + 1, Home: 0, End: n - 1 };
    if (event.key in goals) choose(Math.max(0, Math.min(n - 1, goals[event.key])));
    else if (event.key === "Escape") choose(view.token, false);
    else if (event.key === "Enter" || event.key === " ") choose(view.token, !view.locked);
    else return;
    spans[view.token].scrollIntoView({ block: "nearest" });
    event.preventDefault();
  };

  const matrixToken = (event) => {
    const frame = find(".cells").getBoundingClientRect();
    const share = view.direction === "reads" ? (event.clientY - frame.top) / frame.height : (event.clientX - frame.left) / frame.width;
    return Math.max(0, Math.min(n - 1, Math.floor(share * n)));
  };
  find(".cells").onpointermove = (event) => {
    if (!view.locked) choose(matrixToken(event));
  };
  find(".cells").onclick = (event) => {
    const i = matrixToken(event);
    choose(i, !(view.locked && i === view.token));
  };

  for (const [name, direction] of [[".reads", "reads"], [".read-by", "read by"]])
    find(name).onclick = () => {
      view.direction = direction;
      press();
      show();
    };
  const press = () => {
    find(".reads").setAttribute("aria-pressed", view.direction === "reads");
    find(".read-by").setAttribute("aria-pressed", view.direction !== "reads");
  };
  find(".skip-first").onchange = (event) => {
    view.skip = event.target.checked;
    paint();
    show();
  };

  press();
  paint();
  asked();
  show();
  return watch(find(".views"), () => {
    paint();
    show();
  });
}
