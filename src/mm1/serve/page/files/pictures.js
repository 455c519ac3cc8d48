// Pictures: chosen, dropped or pasted; kept as data URLs, which is how they travel.

import { byId, showError } from "./dom.js";

let number = 0;

function read(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ id: ++number, name: file.name || "pasted picture", url: reader.result });
    reader.onerror = () => reject(new Error(`${file.name}: the file can't be read: choose it again`));
    reader.readAsDataURL(file);
  });
}

/** Return files as pictures `{id, name, url}`; what is no picture is named in an error. */
export async function readPictures(files) {
  const others = files.filter((file) => !file.type.startsWith("image/"));
  showError(others.length ? `${others.map((file) => file.name).join(", ")}: not a picture: choose PNG, JPEG, WebP or similar` : "");
  try {
    return await Promise.all(files.filter((file) => file.type.startsWith("image/")).map(read));
  } catch (error) {
    showError(error.message);
    return [];
  }
}

/** Let a button open an input of files. */
export function choose(buttonId, inputId, take) {
  const input = byId(inputId);
  byId(buttonId).addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    const files = [...input.files];
    input.value = ""; // so that the same file can be chosen again
    take(await readPictures(files));
  });
}

/** Take pictures that are dropped: on `shots` as examples, anywhere else as part of the question. */
export function takeDrops(shots, asExamples, asQuestion) {
  let depth = 0;
  const show = (shown) => (byId("drop").hidden = !shown);
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragenter", (event) => {
    if (hasFiles(event)) show(++depth > 0);
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event)) show((depth = Math.max(0, depth - 1)) > 0);
  });
  addEventListener("dragover", (event) => {
    if (hasFiles(event)) event.preventDefault();
  });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    const take = shots.contains(event.target) ? asExamples : asQuestion;
    take(await readPictures([...event.dataTransfer.files]));
  });
}

/** Take pictures that are pasted anywhere. */
export function takePastes(asQuestion) {
  addEventListener("paste", async (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    // Spreadsheets and word processors copy a picture beside the text that is meant.
    if (!files.length || event.clipboardData.types.includes("text/plain")) return;
    event.preventDefault();
    asQuestion(await readPictures(files));
  });
}
