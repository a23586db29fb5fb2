// Tokens across, layers upwards, edges as wide as what they move. The threshold, hovering and pinning stay in the
// browser; only "Keep" tells the server. Tokens reach the page through textContent and canvas only.
const MARGIN = { left: 58, right: 14, top: 10, bottom: 84 };
const IN = "#2f7fbf", OUT = "#d0620f", PIN = "#e8590c", LISTED = 10;

export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const find = (name) => root.querySelector(name);
  const { tokens, layers } = data;
  const n = tokens.length, total = data.weight.length;
  const text = JSON.stringify([tokens, layers, data.weight]);
  const last = { layer: layers, pos: n - 1 };
  const view = (root.view = root.view?.text === text ? root.view : { text, count: total, pin: null, cursor: last });
  const canvas = find("canvas");
  const most = data.weight[0] || 1;
  const within = budget();
  const count = () => Math.min(view.count, within);
  let step = { x: 1, y: 1 }, hovered = null;

  // The heaviest edges that touch no more nodes than the budget.
  function budget() {
    const nodes = new Set();
    for (let i = 0; i < total; i++) {
      nodes.add(data.layer[i] * n + data.source[i]).add((data.layer[i] + 1) * n + data.target[i]);
      if (nodes.size > data.budget) return Math.max(1, i);
    }
    return total;
  }

  const nodesOf = (edges) => {
    const nodes = new Set();
    for (let i = 0; i < edges; i++) nodes.add(data.layer[i] * n + data.source[i]).add((data.layer[i] + 1) * n + data.target[i]);
    return nodes;
  };

  const x = (pos) => MARGIN.left + (pos + 0.5) * step.x;
  const y = (layer) => MARGIN.top + (layers - layer + 0.3) * step.y;
  const same = (a, b) => a && b && a.layer === b.layer && a.pos === b.pos;
  const isIn = (i, node) => data.layer[i] + 1 === node.layer && data.target[i] === node.pos;
  const isOut = (i, node) => data.layer[i] === node.layer && data.source[i] === node.pos;
  const isFocused = () => canvas.matches(":focus");
  const subject = () => view.pin ?? hovered ?? (isFocused() ? view.cursor : null);

  function draw() {
    const theme = themeOf(canvas);
    find(".flow").style.colorScheme = theme.dark ? "dark" : "light";
    const room = find(".plot").clientWidth || 400;
    step.x = Math.max(17, Math.min(120, (room - MARGIN.left - MARGIN.right) / n));
    step.y = Math.max(14, Math.min(56, 620 / (layers + 1)));
    const width = Math.ceil(MARGIN.left + MARGIN.right + step.x * n), height = Math.ceil(MARGIN.top + MARGIN.bottom + step.y * (layers + 0.6));
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.dataset.geometry = JSON.stringify({ left: MARGIN.left, top: MARGIN.top, x: step.x, y: step.y, layers });
    canvas.dataset.count = count();
    const ctx = canvas.getContext("2d");
    ctx.scale(ratio, ratio);
    ctx.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    drawAxes(ctx, theme);
    const node = subject();
    ctx.lineCap = "round";
    for (let i = count() - 1; i >= 0; i--) if (!node || !(isIn(i, node) || isOut(i, node))) edge(ctx, i, IN, node ? 0.22 : 1);
    if (node) for (let i = count() - 1; i >= 0; i--) if (isIn(i, node)) edge(ctx, i, IN, 1.6); else if (isOut(i, node)) edge(ctx, i, OUT, 1.6);
    dots(ctx, theme, node);
  }

  function edge(ctx, i, colour, strength) {
    const share = data.weight[i] / most, from = [x(data.source[i]), y(data.layer[i])], to = [x(data.target[i]), y(data.layer[i] + 1)];
    ctx.globalAlpha = Math.min(1, strength * (0.18 + 0.72 * Math.sqrt(share)));
    ctx.strokeStyle = colour;
    ctx.lineWidth = 0.7 + 4 * share;
    ctx.beginPath();
    ctx.moveTo(...from);
    ctx.bezierCurveTo(from[0], from[1] - step.y * 0.5, to[0], to[1] + step.y * 0.5, ...to);
    ctx.stroke();
    ctx.globalAlpha = 1;
  }

  function drawAxes(ctx, theme) {
    ctx.strokeStyle = "#88888840";
    for (let pos = 0; pos < n; pos++) {
      ctx.beginPath();
      ctx.moveTo(x(pos), y(0));
      ctx.lineTo(x(pos), y(layers));
      ctx.stroke();
    }
    ctx.fillStyle = theme.text;
    ctx.textAlign = "right";
    ctx.textBaseline = "middle";
    const every = [1, 2, 5, 10, 20].find((one) => one * step.y >= 13) ?? 20;
    for (let layer = 0; layer < layers; layer += every) if (layers - layer >= every * 0.7) ctx.fillText(String(layer), MARGIN.left - 8, y(layer));
    ctx.fillText("end", MARGIN.left - 8, y(layers));
    ctx.textAlign = "center";
    ctx.fillText("token: source below, destination one layer up", Math.max(x(0) + 120, (x(0) + x(n - 1)) / 2), y(0) + MARGIN.bottom - 16);
    ctx.save();
    ctx.translate(10, (y(0) + y(layers)) / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText("residual stream as it enters layer", 0, 0);
    ctx.restore();
    ctx.textAlign = "right";
    for (let pos = 0; pos < n; pos++) {
      ctx.save();
      ctx.translate(x(pos) + 3, y(0) + 10);
      ctx.rotate(-Math.PI / 3);
      ctx.textAlign = "right";
      const name = named(tokens[pos]);
      ctx.fillText(name.length > 12 ? `${name.slice(0, 11)}…` : name, 0, 4);
      ctx.restore();
    }
  }

  function dots(ctx, theme, node) {
    const used = nodesOf(count());
    for (let layer = 0; layer <= layers; layer++)
      for (let pos = 0; pos < n; pos++) {
        const here = { layer, pos }, isUsed = used.has(layer * n + pos);
        ctx.fillStyle = isUsed ? theme.text : "#88888870";
        ctx.beginPath();
        ctx.arc(x(pos), y(layer), isUsed ? 2.4 : 1.1, 0, 7);
        ctx.fill();
        if (same(here, node)) {
          ctx.strokeStyle = PIN;
          ctx.lineWidth = same(here, view.pin) ? 3 : 1.5;
          ctx.beginPath();
          ctx.arc(x(pos), y(layer), 6, 0, 7);
          ctx.stroke();
        }
      }
  }

  function nodeAt(event) {
    const frame = canvas.getBoundingClientRect();
    const pos = Math.round((event.clientX - frame.left - MARGIN.left) / step.x - 0.5);
    const layer = Math.round(layers + 0.3 - (event.clientY - frame.top - MARGIN.top) / step.y);
    return pos >= 0 && pos < n && layer >= 0 && layer <= layers ? { layer, pos } : null;
  }

  function side() {
    const node = subject(), out = find(".readout");
    canvas.dataset.node = node ? `${node.layer}:${node.pos}` : "";
    if (!node) {
      out.replaceChildren(element("span", "Point at a node to see what it reads and what reads it; click it to pin it, Esc lets it go. With the keyboard: Tab, arrows, Enter."));
      find(".lists").replaceChildren();
      return;
    }
    const where = node.layer === layers ? "behind the last layer" : `as it enters layer ${node.layer}`;
    out.replaceChildren(element("span", `${node.pos} `), element("b", named(tokens[node.pos])), element("span", ` ${where}${same(node, view.pin) ? ", pinned" : ""}`));
    const every = Array.from({ length: count() }, (_, i) => i);
    find(".lists").replaceChildren(
      ...list("Reads", "in", every.filter((i) => isIn(i, node)), (i) => data.source[i]),
      ...list("Is read by", "out", every.filter((i) => isOut(i, node)), (i) => data.target[i]),
    );
  }

  function list(title, kind, edges, other) {
    const head = element("h4", `${title} (${edges.length})`, kind);
    if (!edges.length) return [head, element("p", "no shown edge")];
    const table = element("table"), names = element("tr");
    names.append(...["token", data.apart ? "head" : "layer", "weight", "attention"].map((name) => element("th", name)));
    table.append(names);
    for (const i of edges.slice(0, LISTED)) {
      const row = element("tr"), token = element("td", `${other(i)} ${named(tokens[other(i)])}`, "token");
      token.title = named(tokens[other(i)]);
      row.append(token, element("td", data.apart ? `${data.layer[i]}.${data.head[i]}` : String(data.layer[i])), element("td", data.weight[i].toPrecision(3)), element("td", data.attention[i].toFixed(2)));
      table.append(row);
    }
    return edges.length > LISTED ? [head, table, element("p", `and ${edges.length - LISTED} more`)] : [head, table];
  }

  function tell() {
    const slider = find(".threshold");
    slider.min = total ? 1 : 0;
    slider.max = total;
    slider.value = total + (total ? 1 : 0) - view.count; // to the right: a higher threshold
    slider.disabled = total < 2;
    const drawn = count(), least = drawn ? data.weight[drawn - 1].toPrecision(3) : "–";
    const cut = view.count > drawn ? `; ${view.count - drawn} lighter ones would touch more than the ${data.budget} nodes that are drawn at most` : "";
    slider.setAttribute("aria-valuetext", `weight at least ${least}, ${drawn} edges`);
    find(".shown").textContent = `weight ≥ ${least}: ${drawn} of ${total} edges, ${nodesOf(drawn).size} nodes${cut}`;
    find(".keep").textContent = `Keep only these ${drawn}`;
    find(".keep").hidden = drawn === total || !data.may_keep;
  }

  function show() {
    draw();
    side();
  }

  find(".threshold").oninput = (event) => {
    view.count = total + 1 - Number(event.target.value);
    tell();
    show();
  };
  find(".keep").onclick = () => setTriggerValue("keep", count());
  canvas.setAttribute("aria-label", `Attention graph of ${n} tokens and ${layers} layers. Arrow keys move, Enter pins a node, Escape lets it go.`);
  canvas.onpointermove = (event) => {
    const node = nodeAt(event);
    if (same(node, hovered) || (!node && !hovered)) return;
    hovered = node;
    if (!view.pin) show();
  };
  canvas.onpointerleave = () => {
    hovered = null;
    if (!view.pin) show();
  };
  canvas.onclick = (event) => {
    const node = nodeAt(event);
    if (!node) return;
    view.pin = same(node, view.pin) ? null : node;
    view.cursor = node;
    show();
  };
  canvas.onfocus = canvas.onblur = show;
  canvas.onkeydown = (event) => {
    const move = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (move) {
      const layer = Math.max(0, Math.min(layers, view.cursor.layer + move[0])), pos = Math.max(0, Math.min(n - 1, view.cursor.pos + move[1]));
      view.cursor = { layer, pos };
      if (view.pin) view.pin = view.cursor;
    } else if (event.key === "Enter" || event.key === " ") view.pin = same(view.pin, view.cursor) ? null : view.cursor;
    else if (event.key === "Escape") view.pin = null;
    else return;
    hovered = null;
    show();
    event.preventDefault();
  };

  tell();
  show();
  return watch(find(".plot"), show);
}
