// Requests of a page's scripts. Pages have an origin of their own, so no cookie goes along: the page's token does.
// Import `request` for everything that a script asks the platform; paths outside of the page's scope are refused.

const place = document.querySelector('meta[name="prichal-page"]');

/** Whether this page may make requests at all. */
export const mayAsk = () => Boolean(place?.content);

export const renew = (token) => {
  if (place && token) place.content = token;
};

/** fetch with the page's token. Answers are streams, texts or JSON as the server makes them. */
export const request = (path, options = {}) =>
  fetch(path, {
    ...options,
    credentials: "omit",
    cache: "no-store",
    headers: { Accept: "application/json", "Accept-Language": document.documentElement.lang, ...options.headers, "X-Prichal-Page": place.content },
  });

/** Waits, and then until somebody looks at the page. */
export const seenAfter = async (milliseconds) => {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  if (document.visibilityState === "visible") return;
  await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
};

/** Calls `take(kind, data, id)` for each server-sent event of the answer, until it ends. */
export const readEvents = async (answer, take) => {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) takeEvent(block, take);
  }
};

const takeEvent = (block, take) => {
  let kind = "message";
  let id = "";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  if (data.length) take(kind, data.join("\n"), id);
};
