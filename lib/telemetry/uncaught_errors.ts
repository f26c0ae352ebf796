/**
 * What happens to an error that nobody caught: it is logged, and everybody else's downloads go on. Deno
 * would end the process.
 *
 * @module
 */
import { programLog } from "./log.ts";

function tell(error: unknown): void {
  programLog.error("Nobody caught an error, going on: {error}", {
    error: String((error as Error)?.stack ?? error),
  });
}

/** From now on an uncaught error or rejection does not end the process. */
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
