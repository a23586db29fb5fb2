// What each layer would predict behind each token, at one checkpoint. Cells are made once and filled again and again.
function lensOf(root, { data, read, view, choose }) {
  const find = (name) => root.querySelector(name);
  const { layers } = data.lens, n = data.tokens.length;
  const heads = data.tokens.map((token, pos) => {
    const head = element("th", named(token));
    head.title = `${pos}: ${named(token)}`;
    head.append(element("small", String(pos)));
    head.dataset.pos = pos;
    return head;
  });
  const top = element("tr"), rows = [], cells = [];
  top.append(element("th", "layer"), ...heads);
  find(".lens thead").replaceChildren(top);
  const follows = element("tr", undefined, "follows");
  follows.append(element("th", "follows"), ...data.following.map((token) => element("td", named(token))));
  rows.push(follows);
  for (let layer = layers - 1; layer >= 0; layer--) {
    const row = element("tr");
    row.append(element("th", layer === layers - 1 ? `${layer} end` : layer === 0 ? "0 embed" : String(layer)));
    cells[layer] = data.tokens.map((_, pos) => {
      const cell = element("td");
      cell.dataset.pos = pos;
      cell.dataset.layer = layer;
      cell.append(document.createTextNode(""), element("small"));
      row.append(cell);
      return cell;
    });
    rows.push(row);
  }
  find(".lens tbody").replaceChildren(...rows);
  view.cell ??= { layer: layers - 1, pos: n - 1 };
  view.cell.layer = Math.min(view.cell.layer, layers - 1);
  view.cell.pos = Math.min(view.cell.pos, n - 1);
  const measure = find(".measure");
  measure.onchange = draw;
  let at = 0;

  function draw(step = at) {
    at = typeof step === "number" ? step : at;
    const table = rampTable(themeOf(root.querySelector(".player")).ramps.magnitude), ofNext = measure.value === "next";
    for (let layer = 0; layer < layers; layer++)
      for (let pos = 0; pos < n; pos++) {
        const one = read(at, layer, pos), cell = cells[layer][pos], shade = ofNext ? one.next : one.prob[0];
        const [r, g, b] = table[Math.round(255 * Math.min(1, shade))];
        cell.style.background = `rgb(${r},${g},${b})`;
        cell.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#ffffff" : "#14202e";
        cell.firstChild.data = `${named(one.top[0])}${one.top[0] === data.following[pos] ? "✓" : ""}`;
        cell.lastChild.textContent = shade.toFixed(2).replace(/^0/, "");
      }
    say();
  }

  function say() {
    const { layer, pos } = view.cell, one = read(at, layer, pos);
    const parts = [element("span", `layer ${layer}, behind `), element("b", named(data.tokens[pos])), element("span", ` at ${pos}: `)];
    one.top.forEach((token, i) => parts.push(element("b", named(token)), element("span", ` (${one.prob[i].toFixed(3)})  `)));
    parts.push(element("span", "· what follows: ", "about"), element("b", named(data.following[pos])), element("span", ` (${one.next.toFixed(3)})`, "about"));
    find(".readout.cell").replaceChildren(...parts);
    root.querySelector("td.cursor")?.classList.remove("cursor");
    if (find(".scroll").matches(":focus")) cells[layer][pos].classList.add("cursor");
    const marked = view.focus?.list === "q" ? view.focus.i : null;
    heads.forEach((head, i) => head.classList.toggle("chosen", i === marked));
  }

  const scroll = find(".scroll");
  scroll.setAttribute("aria-label", "The likeliest next token of each layer and position. Arrow keys move, Enter locks the position in the attention above.");
  const place = (event) => event.target.closest?.("[data-pos]")?.dataset;
  scroll.onpointerover = (event) => {
    const one = place(event);
    if (one?.layer !== undefined) {
      view.cell = { layer: Number(one.layer), pos: Number(one.pos) };
      say();
    }
  };
  scroll.onclick = (event) => {
    const one = place(event);
    if (one) choose(Number(one.pos));
  };
  scroll.onfocus = scroll.onblur = say;
  scroll.onkeydown = (event) => {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step) {
      view.cell = { layer: Math.max(0, Math.min(layers - 1, view.cell.layer + step[0])), pos: Math.max(0, Math.min(n - 1, view.cell.pos + step[1])) };
      say();
      cells[view.cell.layer][view.cell.pos].scrollIntoView({ block: "nearest", inline: "nearest" });
    } else if (event.key === "Enter") choose(view.cell.pos);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return { draw, say };
}
