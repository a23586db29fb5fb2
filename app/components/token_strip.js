// Tokens reach the page through textContent only.
export default function (component) {
  const { data, parentElement: root, setTriggerValue } = component;
  const strip = root.querySelector(".strip");
  const list = root.querySelector(".tokens");
  const legend = root.querySelector(".legend");
  const { low, high } = data;

  function draw() {
    const { ramps } = themeOf(strip);
    const ramp = data.signed ? ramps.signed : ramps.magnitude;
    const table = rampTable(ramp);
    const colour = (value) => table[Math.round(Math.max(0, Math.min(1, (value - low) / (high - low))) * 255)];
    const focused = [...list.children].indexOf(root.activeElement ?? document.activeElement);
    const items = data.tokens.map((token, i) => {
      const item = element("li", named(token));
      const value = data.values[i];
      if (value !== null) {
        const [r, g, b] = colour(value);
        item.style.background = `rgb(${r}, ${g}, ${b})`;
        item.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#ffffff" : "#10141a";
      }
      item.title = `${i}: ${visible(token)}: ${data.notes ? data.notes[i] : `${value.toFixed(2)}, ${data.ends[value > 0 ? 1 : 0]}`}`;
      item.tabIndex = i === (data.pos ?? 0) ? 0 : -1; // arrow keys reach the others
      item.setAttribute("aria-label", item.title);
      if (data.pos !== null) {
        item.setAttribute("role", "option");
        item.setAttribute("aria-selected", String(i === data.pos));
      }
      return item;
    });
    list.replaceChildren(...items);
    if (focused >= 0) items[focused]?.focus();
    const bar = element("span", undefined, "bar");
    bar.style.background = `linear-gradient(to right, ${ramp.join(", ")})`;
    const [left, right] = [low, high].map((one) => one.toFixed(1));
    const ends = data.signed ? [`${data.ends[0]} ${left}`, `${right} ${data.ends[1]}`] : [`${data.ends[0]} ${left}`, `${right}${data.ends[1]}`];
    legend.replaceChildren(element("span", ends[0]), bar, element("span", ends[1]));
    if (data.hint) legend.append(element("span", data.hint, "hint"));
  }

  const chosen = (event) => [...list.children].indexOf(event.target.closest?.("li"));
  list.classList.toggle("pick", data.pos !== null);
  if (data.pos !== null) {
    list.setAttribute("role", "listbox");
    list.onclick = (event) => {
      const i = chosen(event);
      if (i >= 0) setTriggerValue("chosen", i);
    };
  }
  list.onkeydown = (event) => {
    const i = chosen(event), step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (i < 0) return;
    if (step) list.children[i + step]?.focus();
    else if (data.pos !== null && (event.key === "Enter" || event.key === " ")) setTriggerValue("chosen", i);
    else return;
    event.preventDefault();
  };
  list.setAttribute("aria-label", data.label);
  draw();
  return watch(strip, draw);
}
