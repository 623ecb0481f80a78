/**
 * The hub's client for browsers. It speaks docs/reference/hub-wire.md and needs nothing else.
 *
 *     import { Sojourn } from "/hub/sojourn.js";
 *     const hub = new Sojourn("/hub/", { token: () => fetchToken() });
 *     const chat = hub.join("chat:1", { info: { name: "ada" } });
 *     chat.on("message", (data) => show(data));
 *     chat.on("gap", () => reload());
 *     await chat.publish({ text: "hello" });
 *
 * Written to be small: local variables in place of fields, and properties with a leading underscore, because the build
 * shortens both. The public side, with its types and defaults, is described in sojourn.d.ts.
 */

/** Milliseconds of the second look at a link that seems dead: when a page wakes up, frames wait behind the timer. */
const DOUBT = 1000;
/** Seconds that the server may hold a long poll, and how much later its answer may be. */
const HELD = 25;
const LATE = 10;
/** Tries of the best transport before the next one gets its turn, and milliseconds until it is tried again. */
const TRIES = 3;
const REMEMBER = 600000;

const now = Date.now;
const later = setTimeout;
const write = JSON.stringify;
const between = (low, high) => low + Math.random() * (high - low);
const epochOf = (position) => position.split(".")[0];
const soon = (call) => later(call, between(1000, 3000));
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt());

const dataOf = ({ b, d }) => (b == null ? d : bytes(b));

/**
 * Give an object its `on`. Returns what calls the handlers: at once, and as asynchronous functions, so that one that
 * fails is an unhandled rejection of the page's, and stops nobody.
 */
const emitter = (target) => {
  const handlers = {};
  target.on = (name, handler) => {
    (handlers[name] ??= new Set()).add(handler);
    return () => handlers[name].delete(handler);
  };
  return (name, ...values) => handlers[name]?.forEach(async (handler) => handler(...values));
};

export function Sojourn(
  address,
  {
    token,
    minDelay = 500,
    maxDelay = 20000,
    maxAttempts, // undefined: no limit, as no number is above it
    maxTime,
    timeout = 10000,
    pending = 64,
    transports = ["ws", "sse", "poll"],
  } = {},
) {
  const url = new URL(address, location);
  const hub = {};
  const emit = emitter(hub);
  const channels = new Map(); // by name
  const asked = new Map(); // commands without an answer, by id, in their order
  const uid = Math.random().toString(36);
  let number = 1;

  // The one connection; none while waiting. `_channels` are those that a stream was opened with, `_last` its position.
  let link;
  let timer; // of the state: the next try, the deadline for hello, or the next look at the link
  let ended;
  let kind = 0; // index of the transport to take
  let failed; // links in a row without a hello
  let blocked; // whether another transport was better last
  let since; // when there was a link last
  let until; // when a better transport is tried again
  let bye; // how to come back, said by the server for this time; null: not at all
  let retry; // the same for any time
  let stale; // whether the last credential was refused
  let epoch;
  let max; // bytes of a frame
  let limit; // milliseconds without a frame that a link survives
  let seen; // when the last frame came
  let doubt;

  // -- states

  const become = (state, why) => {
    emit("state", (hub.state = state), why);
    emit(state, why);
  };
  const arm = (milliseconds, call) => {
    clearTimeout(timer);
    timer = later(call, milliseconds);
  };
  const wake = () => document.hidden || (link ? link._open && check() : connect());
  const listen = (listener) => ["online", "visibilitychange"].map((type) => listener(type, wake));
  const credential = () => (token?.call ? token(stale) : token);

  const connect = async () => {
    const mine = (link = {});
    arm(timeout, () => down(mine, "timeout"));
    become("connecting");
    try {
      await 0; // what is joined in the same breath is joined at once
      const secret = await credential();
      mine._headers = secret && { authorization: "Bearer " + secret };
      if (mine == link) await { ws: socket, sse: stream, poll }[transports[kind]](mine, secret);
    } catch (error) {
      down(mine, error.message);
    }
  };

  const hello = (told) => {
    max = told.max ?? max;
    retry = told.retry ?? retry;
    epoch = epochOf(told.pos);
    limit = (told.ping + told.pong) * 1000;
    until = now() + REMEMBER;
    failed = stale = bye = 0;
    blocked = kind;
    link._open = 1;
    check((seen = now()));
    (link._channels ?? channels).forEach((channel) => channel._enter(told));
    become("open", told);
    asked.forEach(put);
  };

  /** One timer, late or not: what counts is when the last frame came. */
  const check = () => {
    const left = seen + limit - now();
    if (kind && now() > until) {
      kind = 0;
      again();
    } else if (left > 0 || !doubt) {
      doubt = left <= 0;
      arm(doubt ? DOUBT : left, check);
    } else down(link, "dead");
  };

  const down = (mine, code, reason) => {
    if (mine != link) return;
    const why = { code, reason };
    drop();
    if (code == 4401 || (code == 401 && !stale)) code = stale = 1; // not for the reasons below
    if (mine._open) since = now();
    else {
      failed++;
      // An answer that does not flow is a proxy's work. None at all says nothing about the way.
      if (kind) kind = mine._answered ? (kind + 1) % transports.length : 0;
      else if (navigator.onLine && (blocked || failed >= TRIES)) kind = 1 % transports.length;
    }
    // HTTP statuses and codes after which coming back would only fail again.
    if (bye === null || /^(204|40[13]|10(0[0237-9]|10)|4[5-9]..)$/.test(code)) stop("stopped", why);
    else if (failed >= maxAttempts || now() - since >= maxTime) stop("giveup", why);
    else {
      let [low, high] = bye || retry || [minDelay, minDelay * 2];
      // "Later" is as if three more had failed.
      if (!bye) high = Math.max(high, Math.min(maxDelay, high * 2 ** (failed - 1 + [1013, 4029].includes(code) * 3)));
      bye = 0;
      arm((why.delay = between(low, high)), connect);
      become("waiting", why);
    }
  };

  const stop = (state, why) => {
    drop((ended = 1));
    clearTimeout(timer);
    listen(removeEventListener);
    asked.forEach((one) => one._end({ code: "closed" }));
    become(state, why);
  };

  /** Forget the link. What may be repeated is asked again on the next one. */
  const drop = () => {
    const last = link;
    link = 0;
    last?._close?.();
    // One position stands for all channels of a stream.
    last?._channels?.map((channel) => channel._move(last._last));
    asked.forEach((one) => (one._again ? (one._sent = 0) : one._sent && one._end({ code: "lost" })));
  };

  const again = () => connect(drop());

  // -- commands

  const ask = (verb, body, repeatable, done) => {
    const id = number++;
    const one = {
      _line: write({ id, [verb]: body }),
      _again: repeatable,
      _end(error, ok) {
        clearTimeout(late);
        asked.delete(id);
        done(error, ok);
      },
    };
    const late = later(one._end, timeout * 3, { code: "timeout", retry: true });
    asked.set(id, one);
    const full = new Blob([one._line]).size > max || (asked.size > pending && verb != "join");
    if (ended || full) one._end({ code: ended ? "closed" : "limit" });
    else put(one);
  };
  const promise = (verb, body, repeatable) =>
    new Promise((resolve, reject) =>
      ask(verb, body, repeatable, (error, ok) => (error ? reject(Object.assign(Error(error.code), error)) : resolve(ok))),
    );

  const put = (one) => {
    if (!link?._open || one._sent) return;
    one._sent = 1;
    if (link._send) link._send(one._line);
    else post(link, one);
  };

  /** Streams have the channels that they were opened with. */
  const changed = (call) => {
    const mine = link;
    if (mine?._channels) queueMicrotask(() => mine == link && again());
    else if (mine?._open) call();
  };

  // -- what comes

  const frame = (mine, text) => {
    seen = now();
    for (const line of text.split("\n")) if (mine == link) line == "{}" ? link._send(line) : line && object(JSON.parse(line));
  };

  const object = (told) => {
    for (const verb in told) (pushes[verb] ?? channels.get(told[verb]?.ch)?.[verb])?.(told[verb], told);
  };

  const pushes = {
    hello,
    id: (id, { error, ok }) => asked.get(id)?._end(error, ok),
    ch: (name, told) => channels.get(name)?._take(told),
    msg: (data) => emit("message", data),
    bin: (text) => emit("message", bytes(text)),
    bye(told) {
      bye = told.retry;
      emit("bye", told);
    },
    async expiring(told) {
      emit("expiring", told);
      if (!token?.call) return;
      stale = 1;
      // Should it fail, the server says when it is over: 4401, and the next link asks again.
      if (link._send) ask("refresh", { token: await credential() }, 0, () => {});
      else again();
    },
  };

  // -- ways

  const socket = (mine, secret) => {
    const made = new WebSocket(url.href.replace(/^http/, "ws"), "sojourn.v1");
    mine._send = (text) => made.send(text);
    mine._close = () => made.close();
    // A credential in the address would be in every log on the way.
    made.onopen = () => secret && made.send(write({ auth: { token: secret } }));
    made.onmessage = ({ data }) => frame(mine, data);
    made.onclose = ({ code, reason }) => down(mine, code, reason);
  };

  /** Open a stream, or poll: with the channels that are joined now, read from the one position that stands for all. */
  const get = async (mine, name, value, accept) => {
    const abort = new AbortController();
    const target = new URL(url);
    const params = target.searchParams;
    // Another epoch than the present one can only be answered with a gap, and must be.
    const rank = (position) => (epochOf(position) == epoch ? +position.split(".")[1] : -1);
    let from = mine._last;
    params.set(name, value);
    mine._close = () => abort.abort();
    mine._channels = [...channels.values()];
    for (const { name, position } of mine._channels) {
      params.append(position ? "ch" : "new", name);
      if (position && !mine._last && !(from && rank(from) < rank(position))) from = position;
    }
    if (from) params.set("since", from);
    const answer = await fetch(target, { signal: abort.signal, headers: { ...mine._headers, ...accept } });
    if (answer.status == 200) mine._answered = 1;
    else down(mine, answer.status);
    return answer;
  };

  // Once the link is dropped, each of these reads fails.
  const stream = async (mine) => {
    const reader = (await get(mine, "v", 1, { accept: "text/event-stream" })).body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) return down(mine, "end");
      seen = now();
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line[0] == "d") frame(mine, line.slice(5)); // data:
    }
  };

  const poll = async (mine) => {
    for (;;) {
      const { pos, pubs, gap, retry: pause } = await (await get(mine, "wait", mine._open ? HELD : 0)).json();
      if (mine != link) return;
      seen = now();
      if (!mine._open) hello({ pos, ping: HELD, pong: LATE });
      gap?.map((ch) => channels.get(ch)?.gap({ pos: epochOf(pos) + ".0" }));
      pubs?.map(object);
      mine._last = pos;
      // Without a channel nothing can come; joining one begins anew.
      await new Promise((done) => later(done, mine._channels[0] ? between(...pause) : timeout));
    }
  };

  const post = async (mine, one) => {
    try {
      const answer = await fetch(url, { method: "POST", body: one._line, headers: mine._headers });
      object(await (answer.ok && answer).json());
    } catch {
      // No answer. It is asked again where that is harmless.
      if (one._again) soon(() => asked.forEach(put), (one._sent = 0));
      else one._end({ code: "lost" });
    }
  };

  // -- the public side

  hub.join = (name, { info, since: position } = {}) => {
    const known = channels.get(name);
    if (known) return known;
    let hole; // where a gap was announced that is not told yet
    let last; // number of the last message: what comes twice is dropped
    const go = (verb, more) => promise(verb, { ch: name, ...more }, 1);
    const current = () => channels.get(name) == channel;
    const joined = ({ pos, recovered }) => {
      // What was missed follows, so the position is taken only where nothing does. After `recovered: false` comes
      // `gap` or `snap`; until then the old position stays, so that the hole is found again after a cut.
      position ??= pos;
      if (recovered === false) hole = epochOf(pos) + ".0";
      inform("joined", recovered);
    };
    const channel = {
      name,
      get position() {
        return position;
      },
      publish: (data, { key } = {}) =>
        go("pub", {
          ...(data instanceof Uint8Array
            ? { b: btoa(data.reduce((text, byte) => text + String.fromCharCode(byte), "")) }
            : { d: data }),
          key,
          uid: uid + number,
        }),
      who: () => go("who"),
      count: () => go("count"),
      history: (query) => go("hist", query),
      leave() {
        if (current()) changed(() => link._send(write({ leave: { ch: name } })), channels.delete(name));
      },
      _move(place) {
        position = place ?? position;
      },
      _enter(told) {
        const mine = link;
        if (link._channels) joined(told);
        else
          ask("join", { ch: name, since: position, info }, 0, (error, ok) => {
            if (ok) joined(ok);
            else if (link && current()) {
              if (error.retry) soon(() => mine == link && current() && channel._enter());
              else inform("error", error, channels.delete(name));
            }
          });
      },
      _take(told) {
        const { p, k: key } = told;
        if (hole) channel.gap({ pos: hole });
        if (p) {
          if (p <= last) return;
          link._last = position = epochOf(position ?? epoch) + "." + (last = p);
        }
        inform("message", dataOf(told), { position, key });
      },
      gap(told, _, event = "gap") {
        hole = last = 0; // in another epoch numbers begin anew
        position = told.pos;
        inform(event, dataOf(told));
      },
      snap: (told) => channel.gap(told, 0, "snapshot"),
      pres: (told) => inform("presence", told),
    };
    const inform = emitter(channel);
    channels.set(name, channel);
    changed(channel._enter);
    return channel;
  };
  hub.send = (data) => promise("msg", data);
  hub.close = () => stop("stopped", { code: 1000 });
  hub.connect = () => {
    if (link) return;
    ended = bye = failed = 0;
    since = now();
    listen(addEventListener);
    connect();
  };
  hub.connect();
  return hub;
}
