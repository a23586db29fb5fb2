// Tokens reach the page through textContent only.

// A token as it is read: spaces at its ends, line breaks and other signs that cannot be seen are drawn.
const visible = (token) =>
  token
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "␦")
    .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)) || "(empty)";

export default function (component) {
  const { data, parentElement: root } = component;

  function column(texts, kind) {
    const item = document.createElement("li");
    if (kind) item.className = kind;
    for (const [i, name] of ["at", "clean", "corrupt"].entries()) {
      const cell = document.createElement("span");
      cell.className = name;
      cell.textContent = texts[i];
      item.append(cell);
    }
    return item;
  }

  const items = data.pairs.map(([clean, corrupt], i) => {
    const item = column([String(i), visible(clean), visible(corrupt)], data.differ[i] ? "differ" : "");
    item.title = `${i}: ${visible(clean)} / ${visible(corrupt)}${data.differ[i] ? ", differs" : ""}`;
    return item;
  });
  root.querySelector(".columns").replaceChildren(column([" ", "clean", "corrupt"], "names"), ...items);
  const differing = data.differ.flatMap((one, i) => (one ? [i] : []));
  const where = differing.length > 12 ? `${differing.slice(0, 12).join(", ")}, …` : differing.join(", ");
  root.querySelector(".summary").textContent = differing.length
    ? `${items.length} tokens; they differ at ${where}.`
    : `${items.length} tokens; the prompts are the same, so patching changes nothing.`;
}
