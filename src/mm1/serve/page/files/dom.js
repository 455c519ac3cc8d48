// Elements. What a model or a person says becomes a text node, never markup.

export const byId = (id) => document.getElementById(id);

/** Return a new element; `props` are its properties, or attributes where their name has a hyphen. */
export function element(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

export const button = (text, label, act) =>
  element("button", { type: "button", onclick: act, "aria-label": label, title: label }, text);

export function showError(message) {
  byId("error").textContent = message;
  byId("error").hidden = !message;
}
