// Shared by components: a token as it is read. Line breaks and other signs that cannot be seen are drawn.
const visible = (token) =>
  token.replace(/\n/g, "↵").replace(/\t/g, "⇥").replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g, "␦");
const named = (token) => (visible(token).trim() === token ? token : visible(token).replace(/ /g, "␣")) || "(empty)";

function element(tag, content, className) {
  const made = document.createElement(tag);
  if (content !== undefined) made.textContent = content;
  if (className) made.className = className;
  return made;
}
