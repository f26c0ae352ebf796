/**
 * The proxy's loggers. Without {@linkcode startLogging} they are silent, as a library's should be.
 *
 * @module
 */
import {
  configure,
  dispose,
  getJsonLinesFormatter,
  getLogger,
  getStreamSink,
  type Logger,
  type LogRecord,
} from "@logtape/logtape";
import type { Config } from "./config.ts";

const CATEGORY = "proxy";

/** One line per request. */
export const requestLog: Logger = getLogger([CATEGORY, "request"]);
/** Decisions and troubles of the cache. */
export const cacheLog: Logger = getLogger([CATEGORY, "cache"]);
/** What upstreams answer and where they redirect. */
export const upstreamLog: Logger = getLogger([CATEGORY, "upstream"]);
/** Start, stop, configuration. */
export const programLog: Logger = getLogger([CATEGORY, "program"]);

/** A value as `logfmt` has it: quoted where it holds a space, a quote or an equals sign. */
function logfmt(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? String(value);
  return typeof value === "string" && /[\s"=]|^$/.test(value) ? JSON.stringify(value) : text;
}

/** What ends a line, moves a terminal's cursor or turns its text around. */
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu;

/** `text` on one line, harmless to a terminal: much of it comes from clients and upstreams. */
function inert(text: string): string {
  return text.replace(CONTROL, (char) => {
    const escaped = JSON.stringify(char).slice(1, -1);
    return escaped === char ? `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}` : escaped;
  });
}

/** The message with its values in their places. */
function messageOf(record: LogRecord): string {
  return record.message.map(String).join("");
}

const formatRecord = getJsonLinesFormatter({ properties: "flatten" });

/** One JSON object per line, with the properties beside the message. */
export function formatJson(record: LogRecord): string {
  // The library's own rendering puts strings within a message in quotes.
  return formatRecord({ ...record, message: [messageOf(record)] });
}

/** `2026-01-02T03:04:05.678Z info request GET … key=value`. */
export function formatText(record: LogRecord): string {
  const message = messageOf(record);
  // What stands in the message need not be said twice.
  const said = new Set(String(record.rawMessage).match(/(?<=\{)\w+(?=\})/g));
  const pairs = Object.entries(record.properties)
    .filter(([key, value]) => value !== undefined && value !== "" && !said.has(key))
    .map(([key, value]) => `${key}=${logfmt(value)}`);
  const time = new Date(record.timestamp).toISOString();
  return inert([time, record.level, record.category.at(-1), message, ...pairs].join(" ")) + "\n";
}

/** Starts writing to standard output. Returns what flushes and ends it. */
export async function startLogging(log: Config["log"]): Promise<() => Promise<void>> {
  const formatter = log.format === "json" ? formatJson : formatText;
  // The sink queues writes and does not close what it was given: standard output belongs to the process.
  const sink = getStreamSink(
    new WritableStream({
      write: async (chunk: Uint8Array) => {
        for (let done = 0; done < chunk.byteLength;) {
          done += await Deno.stdout.write(chunk.subarray(done));
        }
      },
    }),
    { formatter, nonBlocking: { bufferSize: 256, flushInterval: 100 } },
  );
  await configure({
    sinks: { out: sink },
    loggers: [
      { category: CATEGORY, sinks: ["out"], lowestLevel: log.level },
      { category: ["logtape", "meta"], sinks: ["out"], lowestLevel: "warning" },
    ],
    reset: true,
  });
  return dispose;
}
