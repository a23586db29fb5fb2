// One head on the row of tokens: a hovered token shows what it reads, or what reads it; a click locks it. A head between
// two texts has both of them, and the hovered one decides the direction. Tokens reach the page through textContent only.
const MOST_READ = 4;

function wordList(box, texts, label) {
  const spans = texts.map((token, i) => {
    const span = element("span", named(token));
    span.dataset.i = i;
    span.setAttribute("role", "option");
    span.title = `${i}: ${named(token)}`;
    return span;
  });
  box.setAttribute("aria-label", label);
  box.replaceChildren(...spans);
  return spans;
}

// `texts` are {q, k}, lists of tokens; `weight(q, k)` from 0 to 1. What it draws follows `view.focus`: {list, i, locked}.
function rowOf(root, { texts, cross, weight, view, after, onFocus }) {
  const find = (name) => root.querySelector(name);
  const lists = { q: find(".words.q"), k: find(".words.k") };
  const n = { q: texts.q.length, k: texts.k.length };
  const spans = { q: wordList(lists.q, texts.q, cross ? "Tokens that read" : "Tokens of the row"), k: cross ? wordList(lists.k, texts.k, "Tokens that are read") : [] };
  lists.k.hidden = !cross;
  find(".row .choice").hidden = cross;
  find(".caption.q").textContent = cross ? "decoder, which reads" : "";
  find(".caption.k").textContent = cross ? "encoder, which is read" : "";
  if (!view.focus || view.focus.i >= n[view.focus.list] || (!cross && view.focus.list !== "q")) view.focus = { list: "q", i: n.q - 1, locked: false };
  const canvas = find(".cells"), over = find(".cross");
  const cell = Math.max(1, Math.min(16, Math.floor(250 / Math.max(n.q, n.k))));
  over.width = n.k * cell;
  over.height = n.q * cell;
  canvas.width = n.k;
  canvas.height = n.q;
  canvas.style.width = `${n.k * cell}px`;
  canvas.style.height = `${n.q * cell}px`;

  const asks = () => (cross ? view.focus.list === "q" : view.direction === "reads");
  const pair = (other) => (asks() ? [view.focus.i, other] : [other, view.focus.i]);
  const tint = (share, theme) => (theme.dark ? `rgba(62,140,214,${(0.85 * share).toFixed(3)})` : `rgba(49,130,189,${(0.7 * share).toFixed(3)})`);

  function draw() {
    const theme = themeOf(lists.q), other = asks() ? "k" : "q", { list, i: token, locked } = view.focus;
    const shown = cross ? spans[other] : spans.q;
    const values = Array.from({ length: n[other] }, (_, i) => weight(...pair(i)));
    for (const [name, of] of Object.entries(spans))
      of.forEach((span, i) => {
        const here = name === list && i === token;
        span.style.background = "";
        span.classList.toggle("chosen", here);
        span.setAttribute("aria-selected", here);
      });
    shown.forEach((span, i) => {
      if (values[i] >= 0.004) span.style.background = tint(Math.sqrt(Math.min(1, values[i])), theme);
    });
    find(".row").classList.toggle("locked", locked);
    lists.q.dataset.token = lists.k.dataset.token = token;
    read(values, other);
    paint();
    frame();
  }

  function read(values, other) {
    const { list, i } = view.focus;
    const order = values.map((_, at) => at).sort((a, b) => values[b] - values[a] || a - b).slice(0, MOST_READ);
    const out = [element("b", named(texts[list][i])), element("span", ` at ${i} ${asks() ? "reads" : "is read by"} `)];
    const some = order.filter((at) => values[at] >= 0.005);
    some.forEach((at, k) => out.push(element("span", k ? ", " : ""), element("b", named(texts[other][at])), element("span", ` at ${at} (${values[at].toFixed(2)})`)));
    if (!some.length) out.push(element("span", "nothing"));
    const more = list === "q" ? after(i) : null;
    if (more) out.push(element("span", ". ", "about"), ...more);
    find(".readout.token").replaceChildren(...out);
  }

  function paint() {
    const table = rampTable(themeOf(canvas).ramps.magnitude), image = new ImageData(n.k, n.q);
    for (let row = 0; row < n.q; row++)
      for (let column = 0; column < n.k; column++) {
        const value = weight(row, column), [r, g, b] = table[Math.round(255 * Math.sqrt(Math.min(1, value)))];
        image.data.set([r, g, b, value === 0 && column > row && !cross ? 0 : 255], 4 * (row * n.k + column));
      }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function frame() {
    const ctx = over.getContext("2d"), place = view.focus.i * cell, thick = Math.max(cell, 2);
    ctx.clearRect(0, 0, over.width, over.height);
    ctx.strokeStyle = "#e8590c";
    ctx.lineWidth = 1.5;
    if (asks()) ctx.strokeRect(0.75, place + 0.75, over.width - 1.5, thick - 1.5 || 1);
    else ctx.strokeRect(place + 0.75, 0.75, thick - 1.5 || 1, over.height - 1.5);
  }

  function choose(list, i, locked = view.focus.locked) {
    view.focus = { list, i: Math.max(0, Math.min(n[list] - 1, i)), locked };
    draw();
    onFocus();
  }

  const tokenAt = (event) => (event.target.dataset?.i === undefined ? null : Number(event.target.dataset.i));
  for (const [name, box] of Object.entries(lists)) {
    box.onpointerover = (event) => {
      const i = tokenAt(event);
      if (i !== null && !view.focus.locked) choose(name, i);
    };
    box.onclick = (event) => {
      const i = tokenAt(event), { list, i: before, locked } = view.focus;
      if (i !== null) choose(name, i, !(locked && i === before && list === name));
    };
    box.onkeydown = (event) => {
      const at = view.focus.list === name ? view.focus.i : 0;
      const goal = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: n[name] - 1 }[event.key];
      if (goal !== undefined) choose(name, goal);
      else if (event.key === "Enter" || event.key === " ") choose(name, at, !view.focus.locked);
      else if (event.key === "Escape") choose(name, at, false);
      else return;
      spans[name][view.focus.i].scrollIntoView({ block: "nearest" });
      event.preventDefault();
      event.stopPropagation();
    };
  }
  const under = (event) => {
    const frame = canvas.getBoundingClientRect();
    const place = { q: Math.floor(((event.clientY - frame.top) / frame.height) * n.q), k: Math.floor(((event.clientX - frame.left) / frame.width) * n.k) };
    return asks() ? ["q", place.q] : [cross ? "k" : "q", place.k];
  };
  canvas.onpointermove = (event) => {
    if (!view.focus.locked) choose(...under(event));
  };
  canvas.onclick = (event) => choose(...under(event), !view.focus.locked);
  const [reads, readBy] = [find(".reads"), find(".read-by")];
  const turn = (direction) => () => {
    view.direction = direction;
    reads.setAttribute("aria-pressed", direction === "reads");
    readBy.setAttribute("aria-pressed", direction !== "reads");
    draw();
  };
  reads.onclick = turn("reads");
  readBy.onclick = turn("read by");
  reads.setAttribute("aria-pressed", view.direction === "reads");
  readBy.setAttribute("aria-pressed", view.direction !== "reads");
  return { draw, choose };
}
