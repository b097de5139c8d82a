// The index is fetched again while it is looked at; the log of a job that runs is followed by Range requests.
"use strict";

const LOG_EVERY_MS = 1000;
const FIRST_BYTES = 65536;
// What a log's page keeps; the rest is behind its link.
const MOST_CHARACTERS = 400000;
// ECMA-48: colours and the like, of which a page shows none.
const SEQUENCES = /\u001b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[@-Z\\-_])/g;
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

const visible = (text) =>
  text.replace(SEQUENCES, "").replace(/\r\n/g, "\n").replace(/[^\n]*\r(?!$)/g, "")
    .replace(HIDDEN, (char) => "\\u" + char.charCodeAt(0).toString(16).padStart(4, "0"));

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { cache: "no-cache" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const old = document.querySelector("main");
  // Whoever reads by keyboard keeps the place.
  if (fresh && fresh.innerHTML !== old.innerHTML && !old.contains(document.activeElement)) old.replaceWith(fresh);
}

class Log {
  constructor(element) {
    this.element = element;
    this.address = element.dataset.log;
    this.at = -1;
    this.decoder = new TextDecoder();
  }

  async look() {
    if (document.hidden) return;
    const from = this.at < 0 ? `-${FIRST_BYTES}` : `${this.at}-`;
    const answer = await fetch(this.address, { headers: { Range: `bytes=${from}` }, cache: "no-store" });
    if (answer.status === 404 && this.at >= 0) return location.reload();
    if (answer.status === 206) this.append(new Uint8Array(await answer.arrayBuffer()), answer.headers.get("Content-Range"));
    if (answer.status === 416) this.shrink(answer.headers.get("Content-Range"));
    if (answer.status === 200) this.whole(new Uint8Array(await answer.arrayBuffer()));
  }

  // "bytes 100-199/200" (RFC 9110, 14.4)
  append(bytes, range) {
    const [, first] = /^bytes (\d+)-/.exec(range) || [null, "0"];
    if (this.at < 0) this.clear();
    this.at = Number(first) + bytes.length;
    this.show(this.decoder.decode(bytes, { stream: true }));
  }

  // The job was begun again: its log is shorter.
  shrink(range) {
    const [, size] = /^bytes \*\/(\d+)$/.exec(range || "") || [null, null];
    if (size !== null && Number(size) < this.at) this.at = -1;
    if (this.at < 0) this.clear();
    if (this.at < 0 && size === "0") this.at = 0;
  }

  // A server without ranges.
  whole(bytes) {
    if (this.at < 0 || bytes.length < this.at) { this.clear(); this.at = 0; }
    this.show(this.decoder.decode(bytes.subarray(this.at), { stream: true }));
    this.at = bytes.length;
  }

  clear() {
    this.decoder = new TextDecoder();
    this.element.textContent = "";
  }

  show(text) {
    if (!text) return;
    const element = this.element;
    const isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    const all = element.textContent + visible(text);
    element.textContent = all.length > MOST_CHARACTERS ? all.slice(all.indexOf("\n", all.length - MOST_CHARACTERS) + 1) : all;
    if (isAtEnd) element.scrollTop = element.scrollHeight;
  }
}

const every = (ms, look) => {
  const again = () => look().catch(() => {}).finally(() => setTimeout(again, ms));
  return again;
};

for (const element of document.querySelectorAll("[data-log]")) {
  const note = document.querySelector(".following");
  if (note) note.hidden = false;
  const log = new Log(element);
  element.scrollTop = element.scrollHeight;
  every(LOG_EVERY_MS, () => log.look())();
}
const seconds = Number(document.body.dataset.refresh || 0);
if (seconds) setTimeout(every(seconds * 1000, refresh), seconds * 1000);
