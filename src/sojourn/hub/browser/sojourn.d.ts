/** The hub's client for browsers; see docs/how-to/browser-client.md. */

/** What JSON can express, or bytes. */
export type Payload = unknown | Uint8Array;

/**
 * `connecting`, `open`; `waiting` for the next try; `stopped` for good, by `close()` or by a code after which coming back
 * would only fail again; `giveup` after `maxAttempts` or `maxTime`.
 */
export type State = "connecting" | "open" | "waiting" | "stopped" | "giveup";

export interface Options {
  /**
   * The credential, or a function that gets it for each connection. `renew` is true when the last one was refused or is
   * about to end, so that a cached one is of no use. It is never put into an address.
   */
  token?: string | ((renew: boolean) => string | Promise<string>);
  /** Milliseconds before the first try again, at least; the server's advice counts when there is one. Default 500. */
  minDelay?: number;
  /** Milliseconds between two tries, at most. Default 20000. */
  maxDelay?: number;
  /** Failures in a row after which it gives up. Default: never. */
  maxAttempts?: number;
  /** Milliseconds without a connection after which it gives up. Default: never. */
  maxTime?: number;
  /** Milliseconds for a connection to be greeted; a command has three times as long, offline time included. Default 10000. */
  timeout?: number;
  /** Commands that may wait for an answer, or for a connection. Default 64. */
  pending?: number;
  /** Ways to connect, best first. Default `["ws", "sse", "poll"]`. */
  transports?: ("ws" | "sse" | "poll")[];
}

/** Why the state is what it is. */
export interface Why {
  /** Close code, HTTP status, or a word: `timeout`, `dead` (no sign of life), `end` (of a stream), or what failed. */
  code: number | string;
  reason?: string;
  /** Milliseconds until the next try, in the state `waiting`. */
  delay?: number;
}

export interface Hello {
  conn?: string;
  user?: string;
  pos: string;
  ping: number;
  pong: number;
  retry?: [number, number];
  max?: number;
}

export interface Member {
  member: string;
  user: string;
  state: "normal" | "suspect";
  info: unknown;
}

/**
 * What a promise is rejected with. `code` is `forbidden`, `bad_request`, `limit`, `rate`, `unavailable`,
 * `unauthenticated` from the server; here `limit` (too large, or too much waits), `timeout`, `lost` (cut, it may have
 * arrived) or `closed`.
 */
export interface SojournError extends Error {
  code: string;
  /** Whether the same may work later. */
  retry?: boolean;
}

export interface MessageInfo {
  /** The cursor of the message: who resumes from here gets what is after it. */
  position: string;
  key?: string;
}

export interface HistoryPage {
  /** `d` is JSON; `b` is bytes in Base64. */
  pubs: { ch: string; p: number; d?: unknown; b?: string; k?: string }[];
  pos: string;
  /** Whether something between `since` and the first of these is missing. */
  gap: boolean;
  more: boolean;
}

export interface Channel {
  readonly name: string;
  /** The cursor from which it resumes; undefined before it has joined. */
  readonly position?: string;
  /** Publish; `key` is what it is the latest value of. Asked again after a cut, which is harmless. */
  publish(data: Payload, options?: { key?: string }): Promise<{ pos: string; repeated: boolean }>;
  /** Who is there. */
  who(): Promise<{ members: Member[]; more: boolean }>;
  /** How many are there. */
  count(): Promise<{ members: number; users: number }>;
  /** What is kept, oldest first. */
  history(query?: { since?: string; limit?: number }): Promise<HistoryPage>;
  /** Leave; nothing comes any more. */
  leave(): void;

  /** All return a function that ends it. A handler that throws stops nobody else. */
  on(event: "message", handler: (data: any, info: MessageInfo) => void): () => void;
  /** Something is missing before the next message: load the state anew. */
  on(event: "gap", handler: () => void): () => void;
  /** The state of the channel, from the application, in place of a gap. */
  on(event: "snapshot", handler: (state: any) => void): () => void;
  on(event: "presence", handler: (change: { came: Member[]; left: string[] }) => void): () => void;
  /** It is in the channel. `recovered` is undefined when nothing was to be resumed; after false a gap or a snapshot comes. */
  on(event: "joined", handler: (recovered?: boolean) => void): () => void;
  /** It was not let in, and is out of it. */
  on(event: "error", handler: (error: { code: string; message: string }) => void): () => void;
}

export class Sojourn {
  constructor(address: string | URL, options?: Options);
  readonly state: State;
  /** Join a channel, from now on or from a cursor. The same object when it is joined already. */
  join(name: string, options?: { info?: unknown; since?: string }): Channel;
  /** Say something to the application. Not asked again: after a cut it fails with `lost`. */
  send(data: unknown): Promise<{}>;
  /** Try at once, also after it has stopped or given up. */
  connect(): void;
  /** End it. */
  close(): void;

  on(event: "state", handler: (state: State, why?: Why | Hello) => void): () => void;
  on(event: "open", handler: (hello: Hello) => void): () => void;
  on(event: "waiting" | "stopped" | "giveup", handler: (why: Why) => void): () => void;
  on(event: "connecting", handler: () => void): () => void;
  /** A message to this user or this connection. */
  on(event: "message", handler: (data: any) => void): () => void;
  /** The server is about to close the connection. */
  on(event: "bye", handler: (bye: { code: number; reason: string; retry: [number, number] | null }) => void): () => void;
  /** The credential ends in so many seconds; with a `token` function it is renewed already. */
  on(event: "expiring", handler: (told: { in: number }) => void): () => void;
}
