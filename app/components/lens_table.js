// What each layer would predict behind each token. Hovering and the arrow keys read a cell without a word to the server;
// a click or Enter chooses its position. Tokens reach the page through textContent only.
export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const find = (name) => root.querySelector(name);
  const { layers, tokens } = data;
  const n = tokens.length;
  const at = (layer, pos) => layer * n + pos;
  const text = JSON.stringify([tokens, layers]);
  const view = (root.view = root.view?.text === text ? root.view : { measure: root.view?.measure, text, layer: layers - 1, pos: data.pos });
  const measures = {
    probability: { of: (i) => data.prob[i][0], low: 0, high: 1, more: true },
    "KL to the last layer": { of: (i) => data.kl[i], low: 0, high: Math.max(...data.kl, 1e-6), more: false },
    entropy: { of: (i) => data.entropy[i], low: 0, high: Math.max(...data.entropy, 1e-6), more: false },
  };
  data.pins.forEach((pin, k) => {
    const most = Math.log10(Math.max(2, ...data.ranks[k]));
    measures[`rank of ${named(pin)}`] = { of: (i) => Math.log10(data.ranks[k][i]), low: 0, high: most, more: false, rank: data.ranks[k] };
  });
  if (!(view.measure in measures)) view.measure = "probability";

  const select = find(".measure");
  select.replaceChildren(...Object.keys(measures).map((name) => element("option", name)));
  select.value = view.measure;
  select.onchange = () => {
    view.measure = select.value;
    shade();
  };

  const cells = new Array(layers * n);
  const heads = tokens.map((token, pos) => {
    const head = element("th", named(token));
    head.title = `${pos}: ${named(token)}`;
    head.append(element("small", String(pos)));
    head.dataset.pos = pos;
    return head;
  });
  const first = element("tr");
  first.append(element("th", "layer"), ...heads);
  find("thead").replaceChildren(first);
  const rows = [];
  for (let layer = layers - 1; layer >= 0; layer--) {
    const row = element("tr");
    row.append(element("th", layer === layers - 1 ? `${layer} end` : layer === 0 ? "0 embed" : String(layer)));
    for (let pos = 0; pos < n; pos++) {
      const cell = (cells[at(layer, pos)] = element("td", ""));
      cell.dataset.layer = layer;
      cell.dataset.pos = pos;
      row.append(cell);
    }
    rows.push(row);
  }
  find("tbody").replaceChildren(...rows);

  // The end of a scale that means "close to the answer" is the strong one.
  const strength = (measure, i) => {
    const share = (measure.of(i) - measure.low) / (measure.high - measure.low || 1);
    return Math.max(0, Math.min(1, measure.more ? share : 1 - share));
  };

  function shade() {
    const table = rampTable(themeOf(root.querySelector(".lens")).ramps.magnitude);
    const measure = measures[view.measure];
    cells.forEach((cell, i) => {
      const [r, g, b] = table[Math.round(255 * strength(measure, i))];
      cell.style.background = `rgb(${r},${g},${b})`;
      cell.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#ffffff" : "#14202e";
      const number = measure.rank ? ` #${measure.rank[i]}` : view.measure === "probability" ? ` ${data.prob[i][0].toFixed(2).replace(/^0/, "")}` : ` ${measure.of(i).toFixed(1)}`;
      cell.replaceChildren(named(data.top[i][0]), element("small", number));
    });
    const scale = find(".scale").getContext("2d");
    for (let x = 0; x < 120; x++) {
      const place = Math.round((255 * x) / 119);
      scale.fillStyle = `rgb(${table[measure.more ? place : 255 - place].join()})`;
      scale.fillRect(x, 0, 1, 10);
    }
    find(".low").textContent = measure.rank ? "rank 1" : "0";
    find(".high").textContent = measure.rank ? `rank ${Math.round(10 ** measure.high)}` : measure.high.toFixed(measure.more ? 0 : 1);
    mark();
  }

  function mark() {
    heads.forEach((head, pos) => head.classList.toggle("chosen", pos === data.pos));
    root.querySelector("td.cursor")?.classList.remove("cursor");
    if (find(".scroll").matches(":focus")) cells[at(view.layer, view.pos)].classList.add("cursor");
  }

  function read(layer, pos) {
    const out = find(".readout");
    if (layer === null) {
      out.replaceChildren(element("span", "Point at a cell to read it; click it to choose its position. With the keyboard: Tab, arrows, Enter.", "about"));
      return;
    }
    const i = at(layer, pos), parts = [element("span", `layer ${layer}, behind ${pos} `), element("b", named(tokens[pos])), element("span", ": ")];
    data.top[i].forEach((token, k) => parts.push(element("b", named(token)), element("span", ` ${data.prob[i][k].toFixed(3)}  `)));
    const pins = data.pins.map((pin, k) => `, rank of ${named(pin)} ${data.ranks[k][i]}`).join("");
    parts.push(element("span", `· KL ${data.kl[i].toFixed(2)}, entropy ${data.entropy[i].toFixed(2)}${pins}`, "about"));
    out.replaceChildren(...parts);
  }

  const place = (event) => event.target.closest?.("[data-pos]")?.dataset;
  const scroll = find(".scroll");
  scroll.setAttribute("aria-label", "The likeliest next token of each layer and position. Arrow keys move, Enter chooses the position.");
  scroll.onpointerover = (event) => {
    const one = place(event);
    if (one?.layer !== undefined) read(Number(one.layer), Number(one.pos));
  };
  scroll.onpointerleave = () => read(null);
  scroll.onclick = (event) => {
    const one = place(event);
    if (one) setTriggerValue("chosen", Number(one.pos));
  };
  scroll.onfocus = scroll.onblur = mark;
  scroll.onkeydown = (event) => {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      view.layer = Math.max(0, Math.min(layers - 1, view.layer + step[0]));
      view.pos = Math.max(0, Math.min(n - 1, view.pos + step[1]));
      mark();
      cells[at(view.layer, view.pos)].scrollIntoView({ block: "nearest", inline: "nearest" });
      read(view.layer, view.pos);
    } else if (event.key === "Enter" || event.key === " ") setTriggerValue("chosen", view.pos);
    else return;
    event.preventDefault();
  };

  read(null);
  shade();
  return watch(find(".lens"), shade);
}
