/**
 * The body of a `node:http` message as a stream. `Readable.toWeb` makes one too, at half as much CPU again.
 *
 * @module
 */
import type { IncomingMessage } from "node:http";

/** What may wait to be read before the connection is paused, bytes. */
const WAITING = 2 ** 18;

/** What of a message is needed for its body. */
export type MessageBody = Pick<IncomingMessage, "pause" | "resume" | "destroy" | "on" | "once">;

/**
 * The bytes of `message` as they come. It errors with what broke the connection; cancelling it ends the
 * connection.
 */
export function bodyOfMessage(message: MessageBody): ReadableStream<Uint8Array<ArrayBuffer>> {
  let isOver = false;
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    start(controller) {
      const end = (error?: Error) => {
        if (isOver) return;
        isOver = true;
        if (error) controller.error(error);
        else controller.close();
      };
      message.on("data", (chunk: Uint8Array<ArrayBuffer>) => {
        if (isOver) return;
        controller.enqueue(chunk);
        if (controller.desiredSize! <= 0) message.pause();
      });
      message.once("end", () => end());
      // For as long as it lives: without a listener, what comes after the first would end the process.
      message.on("error", end);
      message.once("aborted", () => end(new Error("Connection closed before the end of the body")));
      message.once("close", () => end(new Error("Connection closed before the end of the body")));
    },
    pull() {
      message.resume();
    },
    cancel(reason) {
      isOver = true;
      message.destroy(reason instanceof Error ? reason : undefined);
    },
  }, new ByteLengthQueuingStrategy({ highWaterMark: WAITING }));
}
