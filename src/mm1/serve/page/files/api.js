// The server's API: requests with the key, answers as a stream, errors as the server's sentences.

import { byId } from "./dom.js";

const KEY = "mm1-key";
let asking = null;

/** Ask for the key. Requests that need it at once share the question. */
function askKey(wrong) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = byId("key-dialog");
    byId("key").value = "";
    if (wrong) byId("key-note").textContent = "The server doesn't take this key: enter another one.";
    dialog.returnValue = "";
    dialog.onclose = () => {
      asking = null;
      const key = byId("key").value.trim();
      if (!key) return reject(new Error("the server asks for a key: reload the page and enter it"));
      sessionStorage.setItem(KEY, key);
      byId("key").value = "";
      resolve();
    };
    dialog.oncancel = () => (byId("key").value = "");
    dialog.showModal();
  });
  return asking;
}

async function request(path, body, signal) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    if (body) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error("the server can't be reached, or it ended the connection: is it running?");
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      if (key === sessionStorage.getItem(KEY)) await askKey(Boolean(key));
      continue;
    }
    throw new Error(await sentence(answer));
  }
}

async function sentence(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered with status ${answer.status}`;
  }
}

/** Return the JSON that a path answers with; with a body it is posted. */
export async function call(path, body, signal) {
  return (await request(path, body, signal)).json();
}

/** Yield the chunks of a streamed answer. */
export async function* stream(path, body, signal) {
  const usage = { stream: true, stream_options: { include_usage: true } };
  const answer = await request(path, { ...body, ...usage }, signal);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the answer broke off: is the server running?");
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (!event.startsWith("data: ")) continue;
      if (event.slice(6) === "[DONE]") return;
      const chunk = JSON.parse(event.slice(6));
      if (chunk.error) throw new Error(chunk.error.message);
      yield chunk;
    }
  }
}
