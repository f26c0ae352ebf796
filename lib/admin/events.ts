/**
 * Server-sent events (HTML living standard, §9.2).
 *
 * @module
 */

/** Sends one event; ignored once the client has left. */
export type SendEvent = (data: unknown, name?: string) => void;

/** A proxy in between must not close a connection on which nothing happens for long, ms. */
const KEEP_ALIVE = 15_000;

/** A client that leaves so much unread has stopped reading, bytes: nothing is kept for it any longer. */
const MAX_UNREAD = 4 * 2 ** 20;

/**
 * A stream of what `run` sends, which ends with it. `signal` aborts when the client leaves, or does not read
 * what it is sent.
 */
export function eventStream(
  run: (send: SendEvent, signal: AbortSignal) => Promise<void>,
): Response {
  const abort = new AbortController();
  const encoder = new TextEncoder();
  let timer: ReturnType<typeof setInterval>;
  const source: UnderlyingDefaultSource<Uint8Array<ArrayBuffer>> = {
    start(controller) {
      const write = (text: string) => {
        if (abort.signal.aborted) return;
        controller.enqueue(encoder.encode(text));
        if (controller.desiredSize! >= 0) return;
        clearInterval(timer);
        controller.error(new Error("The client does not read"));
        abort.abort();
      };
      const send: SendEvent = (data, name) =>
        write(`${name ? `event: ${name}\n` : ""}data: ${JSON.stringify(data)}\n\n`);
      timer = setInterval(() => write(": still here\n\n"), KEEP_ALIVE);
      run(send, abort.signal).catch((error) => {
        const { message } = error as Error;
        send({ type: "error", error: message, message }, "error");
      }).finally(() => {
        clearInterval(timer);
        if (!abort.signal.aborted) controller.close();
      });
    },
    cancel() {
      clearInterval(timer);
      abort.abort();
    },
  };
  const body = new ReadableStream(
    source,
    new ByteLengthQueuingStrategy({ highWaterMark: MAX_UNREAD }),
  );
  const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
  return new Response(body, { headers });
}
