// The few-shot examples: pictures with answers, in an order.

import { button, byId, element } from "./dom.js";

export const examples = [];

/** Add an example for each picture. */
export function addExamples(pictures) {
  if (!pictures.length) return;
  examples.push(...pictures.map((picture) => ({ picture, answer: "" })));
  byId("shots").open = true;
  draw();
  byId("shot-list").lastElementChild.querySelector("input").focus();
}

function move(index, by) {
  const [moved] = examples.splice(index, 1);
  examples.splice(index + by, 0, moved);
  draw();
  // The focus stays on the button that was pressed, unless it is at the end.
  const item = byId("shot-list").children[index + by];
  const pressed = item.querySelector(by < 0 ? ".up" : ".down");
  (pressed.disabled ? item.querySelector("input") : pressed).focus();
}

function remove(index) {
  examples.splice(index, 1);
  draw();
  const next = byId("shot-list").children[Math.min(index, examples.length - 1)];
  (next?.querySelector("input") ?? byId("add-shots")).focus();
}

function draw() {
  byId("shot-count").textContent = examples.length ? `(${examples.length})` : "";
  byId("shot-list").replaceChildren(...examples.map(item));
}

function item(example, index) {
  const name = `example ${index + 1}`;
  const up = button("↑", `Move ${name} up`, () => move(index, -1));
  const down = button("↓", `Move ${name} down`, () => move(index, 1));
  up.className = "up";
  down.className = "down";
  up.disabled = index === 0;
  down.disabled = index === examples.length - 1;
  const answer = element("input", { type: "text", value: example.answer, placeholder: "Its answer" });
  answer.setAttribute("aria-label", `Answer of ${name}`);
  answer.oninput = () => (example.answer = answer.value);
  const picture = element("img", { src: example.picture.url, alt: example.picture.name });
  return element("li", {}, picture, answer, up, down, button("✕", `Remove ${name}`, () => remove(index)));
}

/** Return what is wrong with the examples, or nothing. */
export function flaw() {
  const empty = examples.findIndex((example) => !example.answer.trim());
  return empty < 0 ? "" : `example ${empty + 1} has no answer: write one, or remove it`;
}
