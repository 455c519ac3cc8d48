// From examples and rounds to the prompt that is sent: a conversation, or a text where the model takes no turns.

const CAPTION = "Provide a one-sentence caption for the provided image.";

/**
 * Return `{messages}` or `{prompt, images}` for a question.
 *
 * A round has `pictures`, `question` and, if it was answered, `answer`; an example is a round without a question, since
 * yours stands for it.
 */
export function promptOf(turns, form, examples, rounds, asked) {
  const shots = examples.map((shot) => ({ pictures: [shot.picture], question: asked.question, answer: shot.answer }));
  return turns ? conversation([...shots, ...rounds, asked]) : fewShot(form, [...shots, asked]);
}

function conversation(rounds) {
  const messages = [];
  for (const round of rounds) {
    const pictures = round.pictures.map((picture) => ({ type: "image_url", image_url: { url: picture.url } }));
    messages.push({ role: "user", content: [...pictures, { type: "text", text: round.question || CAPTION }] });
    if (round.answer !== undefined) messages.push({ role: "assistant", content: round.answer });
  }
  return { messages };
}

function fewShot(form, rounds) {
  let prompt = "";
  for (const { pictures, question, answer } of rounds) {
    prompt += "<image>".repeat(pictures.length);
    // In pre-training, text after a picture begins with a space.
    if (question) prompt += form === "raw" ? ` ${question.trimStart()}` : ` Question: ${question} Short answer:`;
    if (answer !== undefined) prompt += ` ${answer}\n`;
  }
  return { prompt, images: rounds.flatMap((round) => round.pictures.map((picture) => picture.url)) };
}

/** Return an alternative as it would follow a prompt. */
export const following = (turns, alternative) => (turns ? alternative : ` ${alternative}`);
