// The page of the demo: streams, the slow endpoint, uploads, and the tables. No library, no build.

import { $, make, notice, pretty, say, seconds, show, size } from "./page.js";
import "./chat.js";
import "./prices.js";
import "./panel.js";
import "./export.js";

// Streams of events. A hidden page gives them up: browsers open only six connections to a server.

const streams = {};

function stream(path, name, stateId, handle) {
  let source;
  const open = () => {
    source = new EventSource(path);
    source.onopen = () => say(stateId, "live", true);
    source.onerror = () => say(stateId, "reconnecting", false);
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
    source.addEventListener("goodbye", () => say(stateId, "the server stops", false));
  };
  const close = () => {
    source?.close();
    say(stateId, "paused", false);
  };
  streams[path] = { open, close };
  open();
}

document.addEventListener("visibilitychange", () => {
  for (const { open, close } of Object.values(streams)) document.hidden ? close() : open();
});

// Ticker

let lastTick;

function tick({ number }) {
  const now = performance.now();
  $("tick-number").textContent = number;
  if (lastTick) {
    const gap = now - lastTick.at;
    const bar = make("i", "", gap > 1500 ? "late" : "");
    bar.style.height = `${Math.min(100, gap / 20)}%`;
    bar.title = `${Math.round(gap)} ms`;
    $("pulse").append(bar);
    while ($("pulse").children.length > 60) $("pulse").firstChild.remove();
    const missed = number - lastTick.number - 1;
    $("tick-note").textContent = `Server-sent events, one each second. The last came ${Math.round(gap)} ms after the one `
      + `before${missed > 0 ? `; ${missed} were missed` : ""}.`;
  }
  lastTick = { at: now, number };
}

// Slow endpoint

let asking;

$("slow-seconds").addEventListener("input", () => {
  $("slow-label").textContent = `${Number($("slow-seconds").value).toFixed(1)} s`;
});

$("slow-form").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  if (asking) {
    asking.abort();
    return;
  }
  asking = new AbortController();
  const began = performance.now();
  const seconds = () => ((performance.now() - began) / 1000).toFixed(1);
  const button = $("slow-button");
  button.textContent = "Leave";
  button.className = "quiet";
  const timer = setInterval(() => show("slow-answer", `waiting … ${seconds()} s`), 100);
  try {
    const answer = await fetch(`slow?seconds=${$("slow-seconds").value}`, { signal: asking.signal });
    const text = pretty(await answer.text());
    clearInterval(timer);
    show("slow-answer", `${answer.status} after ${seconds()} s\n${text}`, !answer.ok);
  } catch (error) {
    clearInterval(timer);
    const left = error.name === "AbortError";
    show("slow-answer", left ? `you left after ${seconds()} s; see how the request ended below` : `no answer: ${error.message}`, !left);
  }
  asking = undefined;
  button.textContent = "Ask";
  button.className = "";
});

// Upload

function upload(body) {
  const request = new XMLHttpRequest();
  const limited = $("upload-limited").checked;
  const began = performance.now();
  $("upload-button").disabled = true;
  request.open("POST", limited ? "upload/limited" : "upload");
  request.upload.onprogress = ({ loaded, total }) => {
    $("upload-progress").value = loaded / total;
    show("upload-answer", `${size(loaded)} of ${size(total)} sent`);
  };
  request.onloadend = () => {
    $("upload-button").disabled = false;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    if (request.status) {
      show("upload-answer", `${request.status} after ${seconds} s\n${pretty(request.responseText)}`, request.status !== 200);
    } else {
      show("upload-answer", "the connection ended before the answer could be read", true);
    }
  };
  request.send(body);
}

$("upload-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const chosen = $("upload-size").value;
  if (chosen === "file") {
    $("upload-file").click();
  } else {
    const piece = new Uint8Array(1024 * 1024);
    upload(new Blob(Array(Number(chosen)).fill(piece)));
  }
});
$("upload-file").addEventListener("change", () => {
  if ($("upload-file").files.length) upload($("upload-file").files[0]);
  $("upload-file").value = "";
});

// Live connections

// The longest each wait is by default, in seconds: how much of a bar is left.
const LONGEST = { keep_alive: 75, stream: 300, ping: 20, handler: 4, response_start: 60, header: 10, body: 30, write: 30 };

function live(state) {
  if (state === null) {
    for (const part of document.querySelectorAll(".wide, footer, .sum")) part.hidden = true;
    notice("Another server runs this application. The hub, ticker and upload work; deadlines, connections and endings are "
      + "shown when Sojourn serves it: make demo.");
    return;
  }
  for (const name of ["accepted", "open", "ended"]) $(name).textContent = state.counters[name].toLocaleString("en");
  fill("connections", state.connections, (one) => {
    const row = make("tr", "", one.id === state.you ? "you" : "");
    row.title = one.id === state.you ? "the stream that brings you this table" : "";
    row.append(
      make("td", one.id, "num"), make("td", one.peer, "mono"), make("td", one.protocol || "–"),
      cell(one.path || "–"), make("td", one.phase), make("td", seconds(one.age), "num"), deadline(one.deadline),
      make("td", size(one.bytes_in), "num"), make("td", size(one.bytes_out), "num"), make("td", one.requests, "num"),
      make("td", one.buffered ? size(one.buffered) : "0", "num"),
    );
    return row;
  });
  $("measuring").textContent = state.measuring ? `and ${state.measuring} members of the hub that measure` : "";
  fill("requests", state.requests, ended);
  fill("endings", state.endings, ended);
  $("reasons").replaceChildren(...Object.entries(state.reasons).map(([reason, count]) => {
    const item = make("li", reason);
    item.append(make("b", count));
    return item;
  }));
}

function ended(one) {
  const row = make("tr");
  row.append(
    make("td", one.code, "mono"), make("td", one.reason, `tag ${kind(one.code)}`), cell(one.what),
    make("td", one.connection, "num"), make("td", one.status ?? "–", "num"),
    make("td", one.who === "none" ? "–" : one.who.replace("_", " ")), make("td", one.phase), make("td", one.how || "–"),
    make("td", seconds(one.duration), "num"), make("td", one.advice, "soft"),
  );
  return row;
}

function kind(code) {
  if ("-D".includes(code[0])) return "normal";
  return "Cc".includes(code[0]) ? "client" : "fault";
}

function deadline(next) {
  const td = make("td");
  if (!next) {
    td.textContent = "none";
    return td;
  }
  const box = make("span", "", "deadline");
  const bar = make("span", "", "bar");
  const fill = make("i", "", next.left < 2 ? "soon" : "");
  fill.style.width = `${Math.min(100, (100 * next.left) / (LONGEST[next.slot] ?? 10))}%`;
  bar.append(fill);
  box.append(make("b", `${next.left.toFixed(1)} s`), bar, next.slot);
  td.append(box);
  return td;
}

function fill(id, rows, build) {
  const body = $(id).tBodies[0];
  const empty = make("td", "nothing yet", "empty");
  empty.colSpan = 11;
  const none = make("tr");
  none.append(empty);
  body.replaceChildren(...(rows.length ? rows.map(build) : [none]));
}

function cell(text) {
  const td = make("td", text, "path mono");
  td.title = text;
  return td;
}

for (const element of document.querySelectorAll(".origin")) element.textContent = location.origin;
for (const element of document.querySelectorAll(".host")) element.textContent = `${location.hostname} ${location.port || 80}`;

stream("ticks", "tick", "tick-state", tick);
stream("connections", "connections", "live-state", (state) => live(state));
