// The chat: who is here, what is said, and what comes after a cut.

import { greeting, hub, numberOf } from "./link.js";
import { $, make, say } from "./page.js";

const id = (sessionStorage.id ??= crypto.getRandomValues(new Uint32Array(1))[0].toString(36));
const people = new Map();
let room = "";
let chat;
let held = []; // what is said before the history is there
let cut; // while this page is cut off, and until it knows what it missed

// Coming in

function enter(name, chosen) {
  room = chosen;
  chat = hub.join(`chat:${room}`, { info: { name } });
  chat.on("joined", joined);
  chat.on("message", (line, { position }) => heard(line, numberOf(position)));
  chat.on("gap", () => $("messages").append(make("li", "Something is missing here.", "gap")));
  chat.on("presence", ({ came, left }) => {
    for (const member of came) people.set(member.member, member);
    for (const member of left) people.delete(member);
    showPeople();
  });
  chat.on("error", ({ message }) => ($("chat-note").textContent = message));
  Object.assign(sessionStorage, { name, room });
  $("join-form").hidden = true;
  $("chat-form").hidden = $("chat-actions").hidden = false;
  $("chat-title").firstChild.textContent = `Chat: ${room} `;
}

async function joined(recovered) {
  if (held) await showHistory();
  const { members } = await chat.who();
  people.clear();
  for (const member of members) people.set(member.member, member);
  showPeople();
  if (cut?.back) tellRecovered(recovered);
}

async function showHistory() {
  const { pubs } = await chat.history({ limit: 50 });
  const late = held;
  held = undefined;
  for (const { d, p } of pubs) heard(d, p);
  const last = pubs.at(-1)?.p ?? 0;
  for (const [line, number] of late) if (number > last) heard(line, number);
}

$("join-form").addEventListener("submit", (submit) => {
  submit.preventDefault();
  enter($("join-name").value.trim() || "Somebody", $("join-room").value);
  $("chat-text").focus();
});

// What is said

function heard(line, number) {
  if (held) {
    held.push([line, number]);
    return;
  }
  if (cut?.back) cut.missed += 1; // until the answer to "who is here", which comes behind all that was missed
  const { name = "?", text = "", from } = line ?? {};
  const item = make("li", "", from === id ? "mine" : "");
  item.append(make("b", from === id ? "you" : name), String(text));
  const list = $("messages");
  list.append(item);
  while (list.children.length > 200) list.firstChild.remove();
  scrollDown();
}

function scrollDown() {
  $("messages").scrollTop = $("messages").scrollHeight;
}

$("chat-form").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const text = $("chat-text").value;
  $("chat-text").value = "";
  try {
    await chat.publish({ name: sessionStorage.name, text, from: id });
  } catch ({ code }) {
    $("chat-note").textContent = `“${text}” was not sent: ${code}`;
  }
});

function showPeople() {
  const members = [...people.values()].sort((one, other) => (one.member === greeting.conn ? -1 : other.member === greeting.conn));
  $("people").replaceChildren(...members.map(({ member, state, info }) => {
    const item = make("li", String(info?.name ?? "nameless"), state);
    if (member === greeting.conn) item.append(make("i", " (you)"));
    if (state === "suspect") item.append(make("i", " does not answer"));
    return item;
  }));
}

// The cut

hub.on("state", (state, why) => {
  if (state === "open") {
    say("chat-state", "connected", true);
    if (cut) Object.assign(cut, { back: true, missed: 0 });
  } else if (cut && !cut.back) {
    if (state === "waiting") hub.close(); // it would come back at once: stay away for as long as the server talks
    say("chat-state", "cut off", false);
  } else {
    say("chat-state", why?.delay ? `back in ${Math.ceil(why.delay / 1000)} s` : state, false);
  }
});

$("cut").addEventListener("click", async () => {
  allow(false);
  const began = performance.now();
  const gone = () => ((performance.now() - began) / 1000).toFixed(1);
  cut = { gone };
  const timer = setInterval(() => ($("chat-note").textContent = `Cut off for ${gone()} s, while others talk on …`), 100);
  try {
    const answer = await fetch(`cut?member=${greeting.conn}&room=${room}`, { method: "POST" });
    if (!answer.ok) throw Error(await answer.text());
    cut.said = (await answer.json()).lines;
    hub.connect();
  } catch ({ message }) {
    $("chat-note").textContent = message;
    cut = undefined;
    allow(true);
    hub.connect();
  }
  clearInterval(timer);
});

function tellRecovered(recovered) {
  const { gone, missed, said } = cut;
  const lost = recovered && missed >= said ? "nothing lost" : "and some are missing";
  $("chat-note").textContent = `Resumed after ${gone()} s: ${missed} messages recovered, ${lost}.`;
  cut = undefined;
  allow(true);
  scrollDown(); // the words may have taken a line of its room
}

function allow(on) {
  for (const button of [$("cut"), $("send")]) button.disabled = !on;
}

$("ghost").addEventListener("click", async () => {
  const answer = await fetch(`ghost?room=${room}`, { method: "POST" });
  $("chat-note").textContent = answer.ok
    ? "A ghost came, and answers nothing: in 7 s the hub doubts it, in 16 s it is gone."
    : await answer.text();
});

if (sessionStorage.name) enter(sessionStorage.name, sessionStorage.room);
