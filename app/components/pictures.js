// Shared by the toolbar: the drawings of a page, and how one becomes a file, all in the browser.
const LOOKS = (
  "display position top left right bottom box-sizing max-width padding margin border-top border-right border-bottom border-left border-radius " +
  "border-collapse border-spacing background-color background-image color opacity font-family font-size font-weight " +
  "font-style font-variant-numeric line-height text-align text-decoration text-overflow vertical-align white-space " +
  "overflow-wrap unicode-bidi direction flex flex-direction flex-wrap align-items justify-content gap grid-template-rows " +
  "grid-template-columns grid-row grid-column list-style box-shadow transform visibility z-index outline fill stroke " +
  "stroke-width stroke-dasharray stroke-opacity fill-opacity text-anchor dominant-baseline writing-mode"
).split(" ");
const MOST_NODES = 40000;

// What can be saved: plotly charts and components, by the keys that the page gave them.
function drawings(own) {
  const main = document.querySelector("[data-testid=stMain]") ?? document.body;
  const found = [];
  for (const node of main.querySelectorAll(".js-plotly-plot, [data-testid=stBidiComponentIsolated]")) {
    if (node.contains(own) || node === own || (node.shadowRoot && node.shadowRoot === own)) continue;
    const host = node.shadowRoot ? node : [...node.querySelectorAll("*")].find((one) => one.shadowRoot);
    if (host?.shadowRoot === own) continue;
    if (!node.matches(".js-plotly-plot") && !host) continue;
    if (node.getBoundingClientRect().width === 0) continue;
    const key = [...(node.closest("[class*='st-key-']")?.classList ?? [])].find((one) => one.startsWith("st-key-"));
    const name = (key?.slice(7) || "picture").replace(/-+/g, " ");
    const label = found.some((one) => one.name === name) ? `${name} ${found.length + 1}` : name;
    found.push({ name: label, node, root: host?.shadowRoot });
  }
  return found;
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Plotly's own export, which the chart's bar of buttons offers as PNG only.
function saveChart(node, format, name) {
  const bar = node._fullLayout?._modeBar;
  const button = bar?.buttons.flat().find((one) => one.name === "toImage");
  if (!button) throw new Error("This chart cannot be saved.");
  const { toImageButtonOptions: before, displayNotifier } = node._context;
  node._context.displayNotifier = false;
  node._context.toImageButtonOptions = { format, filename: name, scale: format === "png" ? 2 : 1 };
  try {
    button.click(node);
  } finally {
    node._context.toImageButtonOptions = before;
    setTimeout(() => { node._context.displayNotifier = displayNotifier; }, 3000);
  }
}

// A node with the looks that it has now; canvases become images, choices their words. What scrolls is laid out whole.
function copyOf(node, count) {
  if (node.nodeType === Node.TEXT_NODE) return document.createTextNode(node.data);
  if (node.nodeType !== Node.ELEMENT_NODE || ["STYLE", "SCRIPT"].includes(node.tagName)) return null;
  const style = getComputedStyle(node);
  if (style.display === "none") return null;
  if (++count.nodes > MOST_NODES) throw new Error("This drawing is too large to be saved; show less of it.");
  let copy;
  if (node.tagName === "CANVAS") {
    copy = document.createElement("img");
    copy.src = node.toDataURL();
  } else if (node.tagName === "SELECT" || node.tagName === "INPUT") {
    copy = document.createElement("span");
    copy.textContent = node.tagName === "SELECT" ? node.selectedOptions[0]?.textContent : node.value;
  } else copy = node.cloneNode(false);
  for (const { name } of [...copy.attributes]) if (/^(class|id|style|on.*|tabindex)$/.test(name)) copy.removeAttribute(name);
  const fixed = node.tagName === "CANVAS" || node.namespaceURI !== "http://www.w3.org/1999/xhtml";
  const looks = LOOKS.map((name) => `${name}:${style.getPropertyValue(name)}`);
  const grows = fixed ? "" : "min-";
  looks.push(`${grows}width:${style.width}`, `${grows}height:${style.height}`);
  if (node.tagName !== "SELECT" && /hidden|clip/.test(style.overflowX)) looks.push("overflow:hidden", `width:${style.width}`);
  copy.setAttribute("style", looks.join(";"));
  if (/auto|scroll/.test(style.overflowX + style.overflowY)) {
    count.width += Math.max(0, node.scrollWidth - node.clientWidth);
    count.height += Math.max(0, node.scrollHeight - node.clientHeight);
  }
  if (copy.tagName !== "SPAN" || node.tagName === "SPAN") {
    for (const child of node.childNodes) {
      const inner = copyOf(child, count);
      if (inner) copy.append(inner);
    }
  }
  return copy;
}

// A component as SVG, which holds its elements.
function svgOf(root, host) {
  const box = host.getBoundingClientRect();
  const count = { nodes: 0, width: box.width, height: box.height + 8 };
  const frame = document.createElement("div");
  for (const child of root.childNodes) {
    const copy = copyOf(child, count);
    if (copy) frame.append(copy);
  }
  const [width, height] = [Math.ceil(count.width), Math.ceil(count.height)];
  const style = getComputedStyle(host);
  const background = style.getPropertyValue("--st-background-color").trim() || "#ffffff";
  frame.setAttribute("style", `width:${width}px;height:${height}px;background:${background};color:${style.color};font-family:${style.fontFamily}`);
  const inner = new XMLSerializer().serializeToString(frame);
  const text = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"><foreignObject width="100%" height="100%">${inner}</foreignObject></svg>`;
  return { text, width, height };
}

async function saveComponent(root, host, format, name) {
  const { text, width, height } = svgOf(root, host);
  if (format === "svg") return download(new Blob([text], { type: "image/svg+xml" }), `${name}.svg`);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * width, 2 * height];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  if (!blob) throw new Error("This drawing is too large for a PNG; save it as SVG.");
  download(blob, `${name}.png`);
}

const saveDrawing = (one, format, prefix) => {
  const name = `${prefix} ${one.name}`.trim().replace(/[^\w.-]+/g, "_");
  return one.root ? saveComponent(one.root, one.node, format, name) : saveChart(one.node, format, name);
};
