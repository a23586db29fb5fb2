// Tokens reach the page through textContent only.
export default function (component) {
  const { data, parentElement: root } = component;
  const strip = root.querySelector(".strip");
  const list = root.querySelector(".tokens");
  const legend = root.querySelector(".legend");

  function draw() {
    const { ramps } = themeOf(strip);
    const table = rampTable(ramps.signed);
    const colour = (value) => table[Math.round(((value / data.limit + 1) / 2) * 255)];
    const items = data.tokens.map((token, i) => {
      const item = element("li", named(token));
      const value = data.values[i];
      const [r, g, b] = colour(value);
      item.style.background = `rgb(${r}, ${g}, ${b})`;
      item.style.color = 0.299 * r + 0.587 * g + 0.114 * b < 140 ? "#ffffff" : "#10141a";
      item.title = `${i}: ${visible(token)}: ${value.toFixed(2)}, ${data.ends[value > 0 ? 1 : 0]}`;
      item.tabIndex = 0;
      item.setAttribute("aria-label", item.title);
      return item;
    });
    list.replaceChildren(...items);
    const bar = element("span", undefined, "bar");
    bar.style.background = `linear-gradient(to right, ${ramps.signed.join(", ")})`;
    const [low, high] = [-data.limit, data.limit].map((one) => one.toFixed(1));
    legend.replaceChildren(element("span", `${data.ends[0]} ${low}`), bar, element("span", `${high} ${data.ends[1]}`));
  }

  draw();
  return watch(strip, draw);
}
