// Everything here happens in the browser. Text reaches the page through textContent and value only.
export default function (component) {
  const { data, parentElement: root } = component;
  const find = (name) => root.querySelector(name);
  const said = find(".said"), shown = find(".shown"), pictures = find(".pictures");
  shown.value = data.code;
  shown.rows = Math.min(16, data.code.split("\n").length);
  shown.setAttribute("aria-label", "This view as Python");

  const say = (text) => { said.textContent = text; };
  const show = (text) => {
    shown.value = text;
    shown.hidden = false;
    shown.focus();
    shown.select();
  };

  async function copy(text, done) {
    try {
      await navigator.clipboard.writeText(text);
      say(done);
    } catch {
      show(text);
      say("The browser refused the clipboard: copy it from the box.");
    }
  }

  async function save(one, format) {
    say(`Saving ${one.name}…`);
    try {
      await saveDrawing(one, format, data.name);
      say(`Saved ${one.name} as ${format.toUpperCase()}.`);
    } catch (error) {
      say(error.message);
    }
  }

  function choose(format) {
    const found = drawings(root);
    pictures.hidden = true;
    if (!found.length) return say("There is no drawing on this view yet.");
    if (found.length === 1) return save(found[0], format);
    pictures.replaceChildren(
      ...found.map((one) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `${one.name}.${format}`;
        button.onclick = () => save(one, format);
        return button;
      }),
    );
    pictures.hidden = false;
    say("Which drawing?");
    pictures.querySelector("button").focus();
  }

  const actions = {
    link: () => copy(location.href, data.note || "Link copied."),
    code: () => copy(data.code, "Python copied."),
    show: (button) => {
      shown.value = data.code;
      shown.hidden = !shown.hidden;
      button.setAttribute("aria-expanded", String(!shown.hidden));
    },
    png: () => choose("png"),
    svg: () => choose("svg"),
  };
  for (const name of ["png", "svg"]) find(`[data-do=${name}]`).hidden = !data.pictures;
  for (const button of root.querySelectorAll("[data-do]")) button.onclick = () => actions[button.dataset.do](button);
}
