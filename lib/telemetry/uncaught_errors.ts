/**
 * Logs uncaught errors and keeps the process running, so that other downloads continue. By default Deno
 * would exit.
 *
 * @module
 */
import { programLog } from "./log.ts";

function tell(error: unknown): void {
  programLog.error("Nobody caught an error, going on: {error}", {
    error: String((error as Error)?.stack ?? error),
  });
}

/** Prevents uncaught errors and rejections from ending the process. */
export function handleUncaughtErrors(): void {
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    tell(event.reason);
  });
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    tell(event.error);
  });
}
