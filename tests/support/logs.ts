/**
 * The proxy's log lines, kept for a test.
 *
 * @module
 */
import { configure, type LogRecord, resetSync } from "@logtape/logtape";

/** Log records since the start. */
export interface CapturedLogs {
  readonly records: readonly LogRecord[];
  /** The records whose template (`Download of {digest} failed: {cause}`) matches, oldest first. */
  find(template: RegExp): LogRecord[];
  /** Stops it: `using logs = await captureLogs()`. */
  [Symbol.dispose](): void;
}

/** Keeps every record of the proxy from now on, of all levels. One at a time in a process. */
export async function captureLogs(): Promise<CapturedLogs> {
  const records: LogRecord[] = [];
  await configure({
    sinks: { kept: (record) => void records.push(record) },
    loggers: [
      { category: "proxy", sinks: ["kept"], lowestLevel: "debug" },
      { category: ["logtape", "meta"], sinks: [], lowestLevel: "warning" },
    ],
    reset: true,
  });
  return {
    records,
    find: (template) => records.filter((record) => template.test(String(record.rawMessage))),
    [Symbol.dispose]: resetSync,
  };
}
