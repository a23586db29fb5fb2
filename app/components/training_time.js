// Orange is kept for what the reader has chosen. Lines differ in their dashes as well as in colour.
// The axis of time: losses above, one group of series below, and where the reader stands. The axis is log2(1 + step).
const LINES = {
  light: ["#0072b2", "#a8497f", "#007a5a", "#5b5b5b", "#7a6200", "#4b3f9e", "#3a9bd4"],
  dark: ["#56b4e9", "#e08bc0", "#2fc79a", "#d0d0d0", "#f0e442", "#b9a6ff", "#9ecbff"],
};
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "5 2 1 2 1 2", "1 4", "12 4"];
const EDGE = { left: 44, right: 14, top: 20, bottom: 8, axis: 30 };

function shape(tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const short = (value) => (value === null || value === undefined ? "–" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2));
const wholeStep = (value) => (value === null || value === undefined ? "–" : value >= 10 ? value.toFixed(0) : value.toFixed(1));

// Round numbers between two ends.
function ticksBetween(low, high, about = 4) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.max(0, Math.floor(high / step + 1e-9) - first + 1) }, (_, i) => (first + i) * step);
}

function stepTicks(last) {
  const ticks = [0, 1, 3];
  for (let ten = 10; ten <= last; ten *= 10) ticks.push(ten, 3 * ten);
  return ticks.filter((one) => one <= Math.max(1, last));
}

// Colour and dashes of a line.
const lookOf = (one, i, theme) => {
  const colours = LINES[theme.dark ? "dark" : "light"];
  return one.strong ? { stroke: "#e8590c", "stroke-dasharray": "" } : { stroke: colours[i % colours.length], "stroke-dasharray": DASHES[i % DASHES.length] };
};

// One panel. `series` are {name, value, low, high, date}; returns the svg and a function that moves the marker.
function timePanel({ title, series, share, before, steps, width, height, axis, theme, lossDate }) {
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${title} over the training; the numbers stand in the table beside` });
  const bottom = height - (axis ? EDGE.axis : EDGE.bottom);
  const last = steps[steps.length - 1];
  const first = Math.log2(1 + steps[0]), span = Math.log2(1 + last) - first || 1;
  const x = (step) => EDGE.left + ((Math.log2(1 + step) - first) / span) * (width - EDGE.left - EDGE.right);
  const all = series.flatMap((one) => [...one.value, ...one.low, ...one.high]).filter((one) => one !== null);
  const low = Math.min(0, ...all), high = share ? Math.max(1, ...all) : Math.max(...all, low + 1e-6);
  const y = (value) => bottom - ((value - low) / (high - low || 1)) * (bottom - EDGE.top);
  const faint = theme.dark ? "#ffffff24" : "#00000018";
  for (const tick of ticksBetween(low, high)) {
    svg.append(shape("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y(tick), y2: y(tick), stroke: faint }));
    svg.append(shape("text", { x: EDGE.left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(Number(tick.toPrecision(6)))));
  }
  for (const tick of stepTicks(last).filter((one) => one >= steps[0])) {
    svg.append(shape("line", { x1: x(tick), x2: x(tick), y1: EDGE.top, y2: bottom, stroke: faint }));
    if (axis) svg.append(shape("text", { x: x(tick), y: bottom + 14, "text-anchor": "middle" }, tick.toLocaleString("en")));
  }
  if (axis) svg.append(shape("text", { x: (EDGE.left + width - EDGE.right) / 2, y: height - 3, "text-anchor": "middle" }, "updates (log scale)"));
  svg.append(shape("text", { x: EDGE.left, y: 13, class: "title" }, title));
  if (lossDate !== null && lossDate !== undefined) {
    const line = shape("line", { x1: x(lossDate), x2: x(lossDate), y1: EDGE.top, y2: bottom, stroke: "currentColor", "stroke-dasharray": "2 4", "stroke-opacity": 0.7 });
    line.append(shape("title", {}, `the loss is halfway at step ${wholeStep(lossDate)}`));
    svg.append(line);
  }
  series.forEach((one, i) => drawSeries(svg, one, { x, y, steps, look: lookOf(one, before + i, theme) }));
  const marker = shape("g", { class: "marker" });
  svg.append(marker);
  function mark(at) {
    const place = x(steps[at]);
    marker.replaceChildren(shape("line", { x1: place, x2: place, y1: EDGE.top - 3, y2: bottom, stroke: "#e8590c", "stroke-width": 2 }));
    series.forEach((one, i) => {
      if (one.value[at] === null) return;
      marker.append(shape("circle", { cx: place, cy: y(one.value[at]), r: 3.6, fill: lookOf(one, before + i, theme).stroke, stroke: "#e8590c", "stroke-width": 1.2 }));
    });
  }
  // The checkpoint nearest to a place on the screen.
  function nearest(event) {
    const frame = svg.getBoundingClientRect();
    const place = ((event.clientX - frame.left) / (frame.width || 1)) * width;
    return steps.reduce((best, step, i) => (Math.abs(x(step) - place) < Math.abs(x(steps[best]) - place) ? i : best), 0);
  }
  return { svg, mark, nearest };
}

function drawSeries(svg, one, { x, y, steps, look }) {
  const there = steps.map((step, i) => i).filter((i) => one.value[i] !== null);
  const banded = there.filter((i) => one.low[i] !== null && one.high[i] !== null);
  if (banded.length > 1) {
    const up = banded.map((i) => `${x(steps[i])},${y(one.high[i])}`), down = banded.map((i) => `${x(steps[i])},${y(one.low[i])}`).reverse();
    svg.append(shape("polygon", { points: [...up, ...down].join(" "), fill: look.stroke, "fill-opacity": 0.16 }));
  }
  const points = there.map((i) => `${x(steps[i])},${y(one.value[i])}`).join(" ");
  const line = shape("polyline", { points, fill: "none", "stroke-width": 2, ...look, "stroke-linejoin": "round" });
  line.append(shape("title", {}, one.name));
  svg.append(line);
  if (one.date !== null && one.date !== undefined && there.length > 1) {
    const after = there.findIndex((i) => steps[i] >= one.date);
    if (after > 0) {
      const [a, b] = [there[after - 1], there[after]];
      const way = (Math.log2(1 + one.date) - Math.log2(1 + steps[a])) / (Math.log2(1 + steps[b]) - Math.log2(1 + steps[a]) || 1);
      const [px, py] = [x(one.date), y(one.value[a] + way * (one.value[b] - one.value[a]))];
      const diamond = shape("path", { d: `M${px} ${py - 6}l5 6l-5 6l-5 -6z`, fill: look.stroke, stroke: "currentColor", "stroke-width": 0.8 });
      diamond.append(shape("title", {}, `${one.name}: halfway at step ${wholeStep(one.date)}`));
      svg.append(diamond);
    }
  }
}

// The series as a table: what they are now, when they were halfway, and how many doublings that took.
function seriesTable(panels, theme) {
  const table = element("table"), head = element("thead"), body = element("tbody");
  const dated = panels.some((panel) => panel.series.some((one) => one.date !== null && one.date !== undefined));
  const names = ["series", "now", ...(dated ? ["halfway ◆", "doublings"] : [])];
  const top = element("tr");
  top.append(...names.map((name) => element("th", name)));
  head.append(top);
  const cells = [];
  for (const panel of panels)
    panel.series.forEach((one, i) => {
      const row = element("tr"), name = element("td"), now = element("td");
      if (panel.drawn) {
        const sample = shape("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" });
        sample.append(shape("line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2.4, ...lookOf(one, panel.before + i, theme) }));
        name.append(sample);
      } else row.className = "away";
      name.append(one.name);
      row.append(name, now);
      if (dated) row.append(element("td", wholeStep(one.date)), element("td", one.octaves === null || one.octaves === undefined ? "–" : one.octaves.toFixed(1)));
      body.append(row);
      cells.push([now, one]);
    });
  table.append(head, body);
  const mark = (at) => cells.forEach(([cell, one]) => (cell.textContent = short(one.value[at])));
  return { table, mark };
}
