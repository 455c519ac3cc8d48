// What is inside: images and tokens of a prompt, scores of alternatives, attention over the pictures.

import { element } from "./dom.js";

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

/** Show a prompt's pictures as the model sees them, and its tokens. */
export function showSeen(place, seen) {
  const tokens = seen.tokens.map((token) =>
    token.text === undefined
      ? element("span", { className: "token picture" }, `picture ${token.picture + 1}: ${token.count} tokens`)
      : element("span", { className: "token" }, token.text.replaceAll("\n", "↵") || "∅"),
  );
  place.replaceChildren(
    ...seen.pictures.map((picture) =>
      element("figure", {}, squares(picture), element("figcaption", {}, sentence(picture.summary))),
    ),
    element("p", {}, `${seen.count} tokens:`),
    element("p", { className: "tokens" }, ...tokens),
  );
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

/** Return a picture's images: the whole one, and the grid of crops. `over` makes what lies on each. */
function squares(picture, over = () => null) {
  const box = element("div", { className: "squares" });
  const grid = element("div", { className: "grid" });
  grid.style.gridTemplateColumns = `repeat(${picture.columns}, 1fr)`;
  picture.images.forEach((image, index) => {
    const alt = `image ${index + 1}, ${image.name}`;
    const square = element(
      "div",
      { className: "square", title: `${alt}: ${image.tokens} tokens` },
      element("img", { src: image.source, alt }),
      over(index),
    );
    (image.row === null ? box : grid).append(square);
    if (image.row !== null && !grid.parentNode) box.append(grid);
  });
  return box;
}

/** Show a table of scores, the likeliest first marked. */
export function showScores(place, { scores, likeliest }) {
  // Among the alternatives alone: how the model would choose if it had to name one of them.
  const top = scores[likeliest].log_likelihood;
  const odds = scores.map((row) => Math.exp(row.log_likelihood - top));
  const sum = odds.reduce((a, b) => a + b, 0);
  const head = ["answer", "log-likelihood", "per character", "share"];
  const rows = scores.map((row, index) => {
    const share = odds[index] / sum;
    const bar = element("meter", { min: 0, max: 1, value: share, "aria-label": `share ${percent(share)}` });
    return element(
      "tr",
      { className: index === likeliest ? "likeliest" : "" },
      element("th", { scope: "row" }, row.text.trim(), index === likeliest ? " ★" : ""),
      element("td", {}, row.log_likelihood.toFixed(2)),
      element("td", {}, row.per_character.toFixed(2)),
      element("td", {}, bar, ` ${percent(share)}`),
    );
  });
  place.replaceChildren(
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))),
      element("tbody", {}, ...rows),
    ),
    element("p", { className: "note" }, "★ is the likeliest. Natural logarithms; shares are among these answers alone."),
  );
}

/** Lay an answer's attention over the pictures. */
export function showAttention(place, answer, seen, found) {
  const strongest = Math.max(...found.pictures.flatMap((picture) => picture.images.flat()), 1e-12);
  const figures = found.pictures.map((picture, number) => {
    const layer = (index) => heat(picture.images[index], found.grid, strongest);
    const caption = `Picture ${number + 1}: ${percent(picture.share)} of the attention.`;
    return element("figure", {}, squares(seen.pictures[number], layer), element("figcaption", {}, caption));
  });
  const placeless = "This model's picture tokens have no place in the picture: each bar is a token, in order.";
  const figure = found.pictures.length ? percent(found.text_share) : "all";
  const parts = [
    element("p", { className: "quoted" }, answer),
    ...figures,
    element("p", { className: "note" }, `Text and special tokens: ${figure} of the attention. The strongest picture token
      has ${percent(strongest)}; colours are relative to it.`),
  ];
  if (!found.grid) parts.push(element("p", { className: "note" }, placeless));
  place.replaceChildren(...parts);
}

/** Return a canvas with one cell a token (or one bar, where tokens have no place). */
function heat(weights, grid, strongest) {
  const columns = grid ?? weights.length;
  const rows = grid ?? 1;
  const best = weights.indexOf(Math.max(...weights));
  const where = grid ? `row ${Math.floor(best / grid) + 1}, column ${(best % grid) + 1} of ${grid}` : `token ${best + 1}`;
  const label = `attention: strongest at ${where}, ${percent(weights[best])}`;
  const canvas = element("canvas", { width: columns, height: rows, role: "img", "aria-label": label });
  canvas.className = grid ? "heat" : "heat bars";
  const context = canvas.getContext("2d");
  weights.forEach((weight, index) => {
    context.fillStyle = `rgb(255 60 0 / ${(0.85 * weight) / strongest})`;
    context.fillRect(index % columns, Math.floor(index / columns), 1, 1);
  });
  return canvas;
}
