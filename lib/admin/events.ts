/**
 * Sends server-sent events (HTML living standard, §9.2).
 *
 * @module
 */

/** Sends one event. Does nothing after the client has disconnected. */
export type SendEvent = (data: unknown, name?: string) => void;

/** Interval of keep-alive comments, in ms. They prevent proxies from closing an idle connection. */
const KEEP_ALIVE = 15_000;

/** Maximum unread bytes. The stream of a client with more is aborted. */
const MAX_UNREAD = 4 * 2 ** 20;

/**
 * Returns a stream of the events that `run` sends. It ends when `run` returns. `signal` aborts when the
 * client disconnects or stops reading.
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
