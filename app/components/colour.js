// Shared by the components: colours that colour-blind people can tell apart, for light and dark pages.
const RAMPS = {
  light: {
    magnitude: ["#f3f6fa", "#c6dbef", "#7fb4da", "#3182bd", "#0b3c78"],
    signed: ["#8c2d04", "#e07b39", "#f6f4f2", "#5a9bd0", "#0b3c78"],
  },
  dark: {
    magnitude: ["#1c2430", "#244d78", "#2f7fbf", "#74b9ea", "#e4f4ff"],
    signed: ["#ffb37a", "#c2622a", "#262a31", "#2f7fbf", "#a9d8ff"],
  },
};

const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// 256 colours of a ramp, as [r, g, b].
function rampTable(stops) {
  const parts = stops.map(channels);
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (parts.length - 1);
    const low = Math.min(Math.floor(place), parts.length - 2);
    return parts[low].map((value, c) => Math.round(value + (place - low) * (parts[low + 1][c] - value)));
  });
}

// What the page looks like now: the theme's colours reach components as custom properties.
function themeOf(element) {
  const style = getComputedStyle(element);
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  probe.fillStyle = style.getPropertyValue("--st-background-color").trim() || "#ffffff";
  probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  const dark = 0.299 * r + 0.587 * g + 0.114 * b < 128;
  return { dark, ramps: dark ? RAMPS.dark : RAMPS.light, text: style.getPropertyValue("--st-text-color").trim() || style.color };
}

// Calls `draw` when the width of an element or the theme changes; returns what stops that.
function watch(element, draw) {
  const sizes = new ResizeObserver(() => draw());
  sizes.observe(element);
  const query = matchMedia("(prefers-color-scheme: dark)");
  const later = () => setTimeout(draw, 200);
  query.addEventListener("change", later);
  return () => {
    sizes.disconnect();
    query.removeEventListener("change", later);
  };
}
