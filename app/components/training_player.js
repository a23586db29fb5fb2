// A training, played back. Slider, keys and charts move through the checkpoints in the browser; when the reader comes to
// rest, the page is told where, for its address. Everything else is drawn by the files that stand before this one.
const REST = 500; // milliseconds
const places = {}; // where a reader left a training, for coming back to the page

function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return new Kind(bytes.buffer);
}

// The arrays of a training, decoded once for each.
function filmOf(data) {
  const { lens, steps } = data, n = data.tokens.length;
  const top = unpack(lens.top, Uint32Array), prob = unpack(lens.prob, Uint16Array), next = unpack(lens.next, Uint16Array);
  const attention = Object.fromEntries(
    data.attention.map((one) => {
      const q = one.of_source ? data.source : data.tokens, k = one.of_source || one.cross ? data.source : data.tokens;
      return [one.name, { ...one, q, k, heads: Math.max(...one.widths), layers: one.widths.length, cells: unpack(one.weights, Uint8Array) }];
    }),
  );
  const scored = attention[data.scored];
  return {
    attention,
    score: (kind, step, layer, head) => data.heads[((kind * steps.length + step) * scored.layers + layer) * scored.heads + head],
    weights(name, step, layer, head) {
      const of = attention[name], size = of.q.length * of.k.length, start = ((step * of.layers + layer) * of.heads + head) * size;
      return (q, k) => of.cells[start + q * of.k.length + k] / 255;
    },
    lens(step, layer, pos) {
      const at = (step * lens.layers + layer) * n + pos, range = Array.from({ length: lens.k }, (_, i) => at * lens.k + i);
      return { top: range.map((i) => lens.names[top[i]]), prob: range.map((i) => prob[i] / 65535), next: next[at] / 65535 };
    },
  };
}

function headOf(text, data) {
  const found = /^(?:(.+)\.)?(\d+)\.(\d+)$/.exec(text);
  const names = data.attention.map((one) => one.name), said = found[1] ?? "attn";
  return { attention: names.includes(said) ? said : data.scored, layer: Number(found[2]), head: Number(found[3]) };
}

const addressOf = (chosen) => `${chosen.attention === "attn" ? "" : `${chosen.attention}.`}${chosen.layer}.${chosen.head}`;

export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const find = (name) => root.querySelector(name);
  const { steps, kinds } = data, start = data.start;
  if (root.view?.id !== data.id) {
    clearInterval(root.view?.timer);
    const from = places[data.id] ?? start;
    root.view = { id: data.id, at: Math.max(0, steps.indexOf(from.step)), kind: from.kind, head: headOf(from.head, data), direction: "reads", panel: null };
    root.view.said = JSON.stringify(start); // what the page knows
    root.film = filmOf(data);
    setTimeout(() => (find(".scroll").scrollLeft = find(".scroll").scrollWidth)); // to the position that is read
  }
  const { view, film } = root, slider = find(".slider"), map = find(".map");
  let charts = [], table = null, row = null, box = null;

  const lens = lensOf(root, { data, read: film.lens, view, choose: (pos) => toToken(pos) });

  // ---- what is drawn once, or when another head, kind or panel is chosen ----

  function drawTime() {
    const theme = themeOf(slider), width = Math.max(280, find(".charts").clientWidth || 600);
    const [losses, ...others] = data.panels;
    const panel = others.find((one) => one.title === view.panel) ?? others[0];
    const shared = { steps, width, theme, lossDate: losses?.series.length ? mainLoss(losses).date : null };
    charts = [];
    const after = losses?.series.length ?? 0;
    if (losses) charts.push(timePanel({ ...shared, ...losses, before: 0, height: 150 }));
    if (panel) charts.push(timePanel({ ...shared, ...panel, series: withHead(panel), before: after, height: 185, axis: true }));
    find(".above").replaceChildren(...(charts[0] ? [charts[0].svg] : []));
    find(".lower").replaceChildren(...(charts[1] ? [charts[1].svg] : []));
    const listed = data.panels.map((one) => ({ ...one, drawn: one.loss || one === panel, before: one.loss ? 0 : after, series: one === panel ? withHead(one) : one.series }));
    table = seriesTable(listed, theme);
    find(".series").replaceChildren(table.table);
    for (const chart of charts) {
      chart.svg.onpointerdown = (event) => {
        chart.svg.setPointerCapture(event.pointerId);
        pause();
        go(chart.nearest(event));
      };
      chart.svg.onpointermove = (event) => {
        if (event.buttons) go(chart.nearest(event));
      };
    }
  }

  const mainLoss = (losses) => losses.series.reduce((best, one) => (fall(one) > fall(best) ? one : best));
  const fall = (one) => Math.abs((one.value[steps.length - 1] ?? 0) - (one.value[0] ?? 0));

  // The chosen head stands among the best ones, where these are shares of attention.
  function withHead(panel) {
    if (!panel.share || !panel.title.startsWith("attention") || view.head.attention !== data.scored) return panel.series;
    const kind = kinds.indexOf(view.kind), none = steps.map(() => null);
    const value = steps.map((_, i) => film.score(kind, i, view.head.layer, view.head.head));
    const there = panel.series.some((one) => one.kind === view.kind && one.value.every((number, i) => Math.abs(number - value[i]) < 1e-3));
    if (there) return panel.series;
    return [...panel.series, { name: `${view.kind} of ${addressOf(view.head)}`, value, low: none, high: none, date: null, octaves: null, strong: true }];
  }

  function drawChoices() {
    const fill = (select, options, value) => {
      select.replaceChildren(...options.map((name) => Object.assign(element("option", name), { value: name })));
      select.value = value;
    };
    fill(find(".kind"), kinds, view.kind);
    fill(find(".attention"), data.attention.map((one) => one.name), view.head.attention);
    find(".of").hidden = data.attention.length < 2;
    const others = data.panels.filter((one) => !one.loss).map((one) => one.title);
    fill(find(".panel"), others, others.includes(view.panel) ? view.panel : others[0]);
    find(".choose").hidden = others.length < 2;
    slider.max = steps.length - 1;
  }

  function drawRow() {
    const of = film.attention[view.head.attention];
    find(".which").textContent = `Attention of ${addressOf(view.head)}`;
    row = rowOf(root, { texts: of, cross: of.cross, view, weight: (q, k) => film.weights(of.name, view.at, view.head.layer, view.head.head)(q, k), after: of.of_source ? () => null : behind, onFocus: lens.say });
  }

  // What the model says behind a token.
  function behind(pos) {
    const one = film.lens(view.at, data.lens.layers - 1, pos);
    return [element("span", "Behind it the model gives ", "about"), element("b", named(data.following[pos])), element("span", `, which follows, a probability of ${one.next.toFixed(3)}.`, "about")];
  }

  // ---- what is drawn for each checkpoint ----

  function drawHeads() {
    const of = film.attention[view.head.attention], kind = kinds.indexOf(view.kind), scored = of.name === data.scored;
    const high = Math.max(0.25, ...steps.flatMap((_, i) => of.widths.flatMap((width, layer) => (scored ? Array.from({ length: width }, (_, head) => film.score(kind, i, layer, head) ?? 0) : []))));
    const value = (layer, head) => (scored ? film.score(kind, view.at, layer, head) : null);
    box = headsMap(map, { layers: of.layers, widths: of.widths, value, high, chosen: view.head, width: find(".heads").clientWidth || 300 });
    map.setAttribute("aria-label", `Heads by layer: ${view.kind} at step ${steps[view.at]}. Arrow keys choose a head.`);
    find(".heads .scale").hidden = !scored;
    find(".heads .high").textContent = `${high.toFixed(2)} of the attention`;
    sayHead(view.head);
  }

  function sayHead(head) {
    const scored = view.head.attention === data.scored, score = scored ? film.score(kinds.indexOf(view.kind), view.at, head.layer, head.head) : null;
    const said = scored ? `: ${view.kind} ${short(score)} at step ${steps[view.at].toLocaleString("en")}` : ": not scored";
    find(".readout.head").replaceChildren(element("b", addressOf({ ...view.head, ...head })), element("span", said));
  }

  function draw() {
    slider.value = view.at;
    const step = steps[view.at].toLocaleString("en");
    slider.setAttribute("aria-valuetext", `step ${step}`);
    find(".now").replaceChildren(element("b", `step ${step}`), element("span", ` · checkpoint ${view.at + 1} of ${steps.length}`));
    find(".player").dataset.step = steps[view.at];
    charts.forEach((chart) => chart.mark(view.at));
    table.mark(view.at);
    drawHeads();
    row.draw();
    lens.draw(view.at);
  }

  function drawAll() {
    drawChoices();
    drawTime();
    drawRow();
    paintScale(find(".heads .scale canvas"));
    paintScale(find(".lens .scale canvas"));
    draw();
  }

  // ---- moving ----

  function go(at) {
    const goal = Math.max(0, Math.min(steps.length - 1, at));
    if (goal === view.at) return;
    view.at = goal;
    draw();
    rest();
  }

  function pause() {
    clearInterval(view.timer);
    view.timer = null;
    find(".play").textContent = "Play";
    find(".play").setAttribute("aria-pressed", "false");
    rest();
  }

  function play() {
    clearInterval(view.timer);
    clearTimeout(view.resting);
    view.timer = setInterval(() => {
      if (!find(".player")?.isConnected) return clearInterval(view.timer);
      root.advance();
    }, Number(find(".speed").value));
    find(".play").textContent = "Pause";
    find(".play").setAttribute("aria-pressed", "true");
    if (view.at === steps.length - 1) go(0);
  }

  root.advance = () => {
    if (view.at >= steps.length - 1) return pause();
    go(view.at + 1);
    if (view.at === steps.length - 1) pause();
  };

  const toggle = () => (view.timer ? pause() : play());

  // Tell the page where the reader came to rest.
  function rest() {
    places[data.id] = { step: steps[view.at], head: addressOf(view.head), kind: view.kind };
    clearTimeout(view.resting);
    if (view.timer) return;
    view.resting = setTimeout(() => {
      const said = JSON.stringify(places[data.id]);
      if (said === view.said) return;
      view.said = said;
      setTriggerValue("view", said);
    }, REST);
  }

  function toHead(head) {
    view.head = { ...view.head, ...head };
    drawTime();
    drawRow();
    draw();
    rest();
  }

  function toToken(pos) {
    if (film.attention[view.head.attention].of_source) return;
    row.choose("q", pos, true);
  }

  const moves = { first: () => go(0), back: () => go(view.at - 1), on: () => go(view.at + 1), last: () => go(steps.length - 1) };
  for (const button of root.querySelectorAll("[data-go]"))
    button.onclick = () => {
      if (button.dataset.go === "play") return toggle();
      pause();
      moves[button.dataset.go]();
    };
  slider.oninput = () => {
    if (view.timer) pause();
    go(Number(slider.value));
  };
  find(".stage").onkeydown = (event) => {
    if (event.target.matches("select, button, .series") || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = { ArrowLeft: "back", ArrowDown: "back", ArrowRight: "on", ArrowUp: "on", Home: "first", End: "last" }[event.key];
    if (event.key === " ") toggle();
    else if (move) {
      pause();
      moves[move]();
    } else return;
    event.preventDefault();
  };
  find(".speed").onchange = () => view.timer && play();
  find(".kind").onchange = (event) => {
    view.kind = event.target.value;
    toHead({});
  };
  find(".attention").onchange = (event) => {
    view.focus = null;
    toHead({ attention: event.target.value, layer: 0, head: 0 });
  };
  find(".panel").onchange = (event) => {
    view.panel = event.target.value;
    drawTime();
    draw();
  };
  map.onpointermove = (event) => sayHead(headAt(event, map, box, film.attention[view.head.attention].widths) ?? view.head);
  map.onpointerleave = () => sayHead(view.head);
  map.onclick = (event) => {
    const head = headAt(event, map, box, film.attention[view.head.attention].widths);
    if (head) toHead(head);
  };
  map.onkeydown = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key], { widths } = film.attention[view.head.attention];
    if (!step) return;
    const layer = Math.max(0, Math.min(widths.length - 1, view.head.layer + step[0]));
    toHead({ layer, head: Math.max(0, Math.min(widths[layer] - 1, view.head.head + step[1])) });
    event.preventDefault();
  };

  drawAll();
  find(".play").textContent = view.timer ? "Pause" : "Play";
  rest();
  // What is written changes the height all the time; only the width and the theme call for new drawings.
  const looks = () => `${find(".player").clientWidth} ${themeOf(slider).dark}`;
  let looked = looks();
  const stop = watch(find(".player"), () => {
    if (looked === (looked = looks())) return;
    drawAll();
  });
  return () => {
    stop();
    clearTimeout(view.resting);
  };
}
