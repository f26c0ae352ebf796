/**
 * The proxy's loggers. Without {@linkcode startLogging} they are silent, as a library's should be.
 *
 * @module
 */

import { AsyncLocalStorage } from "node:async_hooks";
import {
  configure,
  dispose,
  getJsonLinesFormatter,
  getLogger,
  type Logger,
  type LogRecord,
  withContext,
} from "@logtape/logtape";
import { LineWriter } from "./line_writer.ts";
import { cut } from "../util/text.ts";

const CATEGORY = "proxy";

/** One line per request. */
export const requestLog: Logger = getLogger([CATEGORY, "request"]);
/** Decisions and failures of the cache. */
export const cacheLog: Logger = getLogger([CATEGORY, "cache"]);
/** Upstream responses and redirects. */
export const upstreamLog: Logger = getLogger([CATEGORY, "upstream"]);
/** The operator's listener. */
export const adminLog: Logger = getLogger([CATEGORY, "admin"]);
/** Startup, shutdown and configuration. */
export const programLog: Logger = getLogger([CATEGORY, "program"]);

/** `value` as a line may have it, of a text no more than its beginning. */
function bounded(value: unknown): unknown {
  if (typeof value === "string") return cut(value, MAX_LOGGED);
  if (typeof value !== "object" || value === null) return value;
  const text = JSON.stringify(value) ?? "";
  return text.length <= MAX_LOGGED ? value : cut(text, MAX_LOGGED);
}

/** A value as `logfmt` has it: quoted where it holds a space, a quote or an equals sign. */
function logfmt(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? String(value);
  return typeof value === "string" && /[\s"=]|^$/.test(value) ? JSON.stringify(value) : text;
}

/** What ends a line, moves a terminal's cursor or turns its text around. */
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/**
 * Returns `text` as one line without terminal control characters, because it may come from clients or
 * upstreams.
 */
function inert(text: string): string {
  return text.replace(CONTROL, (char) => {
    const escaped = JSON.stringify(char).slice(1, -1);
    return escaped === char ? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}` : escaped;
  });
}

/** Returns the message with its placeholders filled in. */
function messageOf(record: LogRecord): string {
  return record.message.map((part) => cut(String(part), MAX_LOGGED)).join("");
}

const formatRecord = getJsonLinesFormatter({ properties: "flatten" });

/** Formats a record as one JSON object per line, with the properties beside the message. */
export function formatJson(record: LogRecord): string {
  // The library's own rendering puts strings within a message in quotes.
  const properties = Object.fromEntries(
    Object.entries(record.properties).map(([key, value]) => [key, bounded(value)]),
  );
  return formatRecord({ ...record, properties, message: [messageOf(record)] });
}

/** `2026-01-02T03:04:05.678Z info request GET … key=value`. */
export function formatText(record: LogRecord): string {
  const message = messageOf(record);
  // Values that appear in the message are not repeated.
  const said = new Set(String(record.rawMessage).match(/(?<=\{)\w+(?=\})/g));
  const pairs = Object.entries(record.properties)
    .filter(([key, value]) => value !== undefined && value !== "" && !said.has(key))
    .map(([key, value]) => `${key}=${logfmt(bounded(value))}`);
  const time = new Date(record.timestamp).toISOString();
  return inert([time, record.level, record.category.at(-1), message, ...pairs].join(" ")) + "\n";
}

/** Whose lines are written here, without the library's way for every record. */
let direct:
  | { readonly format: (record: LogRecord) => string; readonly lines: LineWriter }
  | undefined;

/** What is said of a request. A client's address comes last: it is all that differs between two hits. */
export type RequestFields = Readonly<Record<string, unknown>>;

const REQUEST = "{method} {path} {status}";

/** A line about a request that will be made often, by clients of any address. */
export function requestLine(fields: RequestFields): (client: string) => void {
  return direct ? directLine(fields, direct) : loggedLine(fields);
}

function loggedLine(fields: RequestFields): (client: string) => void {
  return (client) => requestLog.info(REQUEST, { ...fields, client });
}

/** Apart, so that what it returns keeps the line alone alive, and not `fields`. */
function directLine(
  fields: RequestFields,
  { format, lines }: NonNullable<typeof direct>,
): (client: string) => void {
  if (!requestLog.isEnabledFor("info")) return () => {};
  const client = crypto.randomUUID(); // whatever clients write, it is not this
  const record = requestRecord({ ...fields, client });
  const line = format(record);
  // The first: what a client wrote comes after the time in every format.
  const [before = "", ...after] = line.split(new Date(record.timestamp).toISOString());
  const rest = after.join(new Date(record.timestamp).toISOString());
  const at = rest.indexOf(client);
  const middle = rest.slice(0, at);
  const end = rest.slice(at + client.length);
  return (address) => lines.write(before + isoNow() + middle + address + end);
}

function requestRecord(fields: RequestFields): LogRecord {
  const { method, path, status } = fields;
  return {
    category: requestLog.category,
    level: "info",
    message: ["", method, " ", path, " ", status, ""],
    rawMessage: REQUEST,
    timestamp: Date.now(),
    properties: fields,
  };
}

let millisecond = 0;
let iso = "";

let requests: number | undefined;

/**
 * What `work` returns. At debug the lines about one request carry its number, `id`: those of several come mixed. What a
 * download says later carries that of the request that began it.
 */
export function withRequestId<T>(work: () => T): T {
  return requests === undefined ? work() : withContext({ id: ++requests }, work);
}

/** The time, written out once per millisecond. */
function isoNow(): string {
  const now = Date.now();
  if (now !== millisecond) {
    millisecond = now;
    iso = new Date(now).toISOString();
  }
  return iso;
}

function missingRecord(lines: number): LogRecord {
  return {
    category: programLog.category,
    level: "warning",
    message: ["", lines, " log lines were dropped: nobody read them"],
    rawMessage: "{lines} log lines were dropped: nobody read them",
    timestamp: Date.now(),
    properties: { lines },
  };
}

/** The log settings. */
export interface LogSettings {
  /** The minimum level that is logged. */
  readonly level: LogLevel;
  /** Text for people, or JSON for programs. */
  readonly format: "text" | "json";
}

/** Starts logging to standard output. Returns a function that flushes and stops it. */
export async function startLogging(log: LogSettings): Promise<() => Promise<void>> {
  const format = log.format === "json" ? formatJson : formatText;
  const lines = new LineWriter({
    write: (bytes) => Deno.stdout.write(bytes),
    missing: (count) => format(missingRecord(count)),
  });
  const isDebug = log.level === "debug";
  requests = isDebug ? 0 : undefined;
  await configure({
    contextLocalStorage: isDebug ? new AsyncLocalStorage() : undefined,
    sinks: { out: (record) => lines.write(format(record)) },
    loggers: [
      { category: CATEGORY, sinks: ["out"], lowestLevel: log.level },
      { category: ["logtape", "meta"], sinks: ["out"], lowestLevel: "warning" },
    ],
    reset: true,
  });
  direct = { format, lines };
  return async () => {
    direct = undefined;
    requests = undefined;
    await dispose();
    await lines.end();
  };
}

/** Maximum length of a value in a log line, in characters. */
export const MAX_LOGGED = 2 * 1024;

/** The log levels. */
export type LogLevel = "debug" | "info" | "warning" | "error";
