// The conversation: what is asked, sent and shown.

import { call, stream } from "./api.js";
import { button, byId, element, showError } from "./dom.js";
import { addExamples, examples, flaw } from "./examples.js";
import { showAttention, showScores, showSeen } from "./inside.js";
import { choose, takeDrops, takePastes } from "./pictures.js";
import { following, promptOf } from "./prompt.js";

const state = { about: null, rounds: [], pending: [], last: null, running: null };

function thumbnails(pictures) {
  return pictures.map((picture) => element("img", { src: picture.url, alt: picture.name }));
}

function addPictures(pictures) {
  state.pending.push(...pictures);
  drawPending();
  byId("question").focus();
}

function drawPending() {
  const items = state.pending.map((picture) => {
    const drop = () => {
      state.pending = state.pending.filter((one) => one !== picture);
      drawPending();
      byId("question").focus();
    };
    return element("li", {}, ...thumbnails([picture]), button("✕", `Remove ${picture.name}`, drop));
  });
  byId("pending").replaceChildren(...items);
}

/** Return the round that is being asked; null: nothing is. */
function draft() {
  const question = byId("question").value.trim();
  if (!question && !state.pending.length) return null;
  let pictures = [...state.pending];
  // Without turns every question stands alone, so it is about the last pictures.
  if (!state.about.takes_turns && !pictures.length) pictures = state.rounds.at(-1)?.pictures ?? [];
  return { pictures, question };
}

function promptFor(asked) {
  const wrong = flaw();
  if (wrong) throw new Error(wrong);
  return promptOf(state.about.takes_turns, byId("form").value, examples, state.rounds, asked);
}

/** Return the prompt that "Inside" is about: the draft's, or the last that was sent. */
function currentPrompt() {
  const asked = draft();
  if (asked) return promptFor(asked);
  if (state.last) return state.last;
  throw new Error("there is no question yet: add a picture or write one");
}

function settings() {
  const temperature = Number(byId("temperature").value);
  return {
    max_tokens: Number(byId("most").value) || state.about.max_tokens,
    ...(temperature ? { temperature } : {}),
    ...(state.about.takes_turns ? {} : { stop: "\n" }),
  };
}

function entry(asked) {
  const text = element("p", { className: "text" });
  const foot = element("div", { className: "foot note" });
  const item = element(
    "li",
    {},
    element(
      "div",
      { className: "user" },
      element("div", { className: "pictures" }, ...thumbnails(asked.pictures)),
      asked.question ? element("p", { className: "text" }, asked.question) : null,
    ),
    element("div", { className: "model", "aria-busy": "true" }, text, foot),
  );
  byId("log").append(item);
  item.scrollIntoView({ block: "nearest" });
  return { item, text, foot };
}

function setRunning(controller) {
  state.running = controller;
  byId("stop").hidden = !controller;
  byId("send").disabled = Boolean(controller);
}

async function send() {
  const asked = state.running || !state.about ? null : draft();
  if (!asked) return;
  showError("");
  let prompt;
  try {
    prompt = promptFor(asked);
  } catch (error) {
    return showError(error.message);
  }
  const controller = new AbortController();
  const { rounds } = state;
  setRunning(controller);
  const shown = entry(asked);
  const waiting = { question: byId("question").value, pictures: state.pending };
  byId("question").value = "";
  state.pending = [];
  drawPending();
  const began = performance.now();
  let words = "";
  let usage = null;
  let failed = "";
  try {
    const path = state.about.takes_turns ? "/v1/chat/completions" : "/v1/completions";
    for await (const chunk of stream(path, { ...prompt, ...settings() }, controller.signal)) {
      const choice = chunk.choices[0];
      words += choice?.delta?.content ?? choice?.text ?? "";
      usage = chunk.usage ?? usage;
      shown.text.textContent = words.trim();
    }
  } catch (error) {
    failed = error.name === "AbortError" ? "stopped" : error.message;
  }
  setRunning(null);
  shown.item.querySelector(".model").setAttribute("aria-busy", "false");
  if (rounds !== state.rounds) return; // another chat was begun meanwhile
  if (failed && failed !== "stopped") showError(failed);
  if (!words.trim() && failed) {
    // Nothing was answered: what was asked goes back to where it was written.
    shown.item.remove();
    if (!byId("question").value) byId("question").value = waiting.question;
    state.pending = [...waiting.pictures, ...state.pending];
    return drawPending();
  }
  if (words.trim()) rounds.push({ ...asked, answer: words.trim() });
  state.last = prompt;
  finish(shown, prompt, words, usage, failed, (performance.now() - began) / 1000);
}

function finish(shown, prompt, words, usage, failed, seconds) {
  const cut = usage && usage.completion_tokens >= settings().max_tokens ? ", the longest allowed" : "";
  const counts = usage ? `${usage.completion_tokens} tokens${cut}, ` : "";
  shown.foot.append(`${failed ? `${failed}, ` : ""}${counts}${seconds.toFixed(1)} s`);
  if (!words.trim()) shown.text.append(element("i", {}, "(an empty answer)"));
  else if (state.about.looks_inside) shown.foot.append(" ", lookButton(prompt, words));
}

function lookButton(prompt, words) {
  const look = button("Where it looked", "Show where this answer looked", () =>
    inside(look, byId("attention"), async (place) => {
      const [seen, found] = await Promise.all([
        call("/mm1/tiles", prompt),
        call("/mm1/attention", { ...prompt, answer: words }),
      ]);
      byId("attention-hint").hidden = true;
      showAttention(place, words.trim(), seen, found);
      byId("attention-title").scrollIntoView({ block: "nearest" });
    }),
  );
  return look;
}

/** Run what a button of "Inside" asks for; an error is shown in its place. */
async function inside(pressed, place, act) {
  pressed.disabled = true;
  place.setAttribute("aria-busy", "true");
  try {
    await act(place);
  } catch (error) {
    place.replaceChildren(element("p", { className: "error", role: "alert" }, error.message));
    place.scrollIntoView({ block: "nearest" });
  }
  place.setAttribute("aria-busy", "false");
  pressed.disabled = false;
  pressed.focus({ preventScroll: true });
}

function listen() {
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") state.running?.abort();
  });
  byId("stop").addEventListener("click", () => {
    state.running?.abort();
    byId("question").focus();
  });
  byId("new-chat").addEventListener("click", () => {
    state.running?.abort();
    Object.assign(state, { rounds: [], last: null });
    for (const id of ["log", "seen", "scores", "attention"]) byId(id).replaceChildren();
    byId("attention-hint").hidden = false;
    showError("");
    byId("question").focus();
  });
  byId("see").addEventListener("click", () =>
    inside(byId("see"), byId("seen"), async (place) => showSeen(place, await call("/mm1/tiles", currentPrompt()))),
  );
  byId("score").addEventListener("click", () =>
    inside(byId("score"), byId("scores"), async (place) => {
      const lines = byId("alternatives").value.split("\n").map((line) => line.trim());
      const alternatives = [...new Set(lines.filter(Boolean))].map((line) => following(state.about.takes_turns, line));
      if (!alternatives.length) throw new Error("there is no answer to score: write some, one a line");
      showScores(place, await call("/mm1/scores", { ...currentPrompt(), alternatives }));
    }),
  );
  choose("add-pictures", "files", addPictures);
  choose("add-shots", "shot-files", addExamples);
  takeDrops(byId("shots"), addExamples, addPictures);
  takePastes(addPictures);
}

async function begin() {
  byId("send").disabled = true;
  try {
    state.about = await call("/mm1/about");
  } catch (error) {
    return showError(error.message);
  }
  const { about } = state;
  byId("model").textContent = about.model;
  document.title = `mm1 · ${about.model}`;
  byId("most").max = about.max_tokens;
  byId("most").value = about.takes_turns ? about.max_tokens : about.usual_tokens;
  byId("form-label").hidden = about.takes_turns;
  byId("inside").hidden = !about.looks_inside;
  byId("hint").textContent = about.takes_turns
    ? ""
    : "This model is pre-trained and takes no turns: every question stands alone, after the examples. Without a question it captions.";
  byId("send").disabled = false;
  byId("question").focus();
}

// At once: a picture that is dropped where nobody listens would open in place of the page.
listen();
begin();
