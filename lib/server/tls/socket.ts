/**
 * A client's connection with TLS, as `node:tls` has it.
 *
 * @module
 */
import type { Buffer } from "node:buffer";
import type { TLSSocket } from "node:tls";
import type { Socket } from "../http1/socket.ts";

/** What is written at once: a client that takes so much in a while is one that goes on. */
const LONGEST_WRITE = 64 * 1024;

/** A connection after its handshake. */
export class TlsSocket implements Socket {
  readonly remoteAddr: Deno.NetAddr;
  readonly #socket: TLSSocket;
  /** What has come and was not asked for yet. */
  #left: Buffer | undefined;
  #isEnded = false;
  #isClosed = false;
  #wake: (() => void) | undefined;

  constructor(socket: TLSSocket, remoteAddr: Deno.NetAddr) {
    this.#socket = socket;
    this.remoteAddr = remoteAddr;
    const wake = () => this.#wake?.();
    socket.on("readable", wake);
    socket.on("end", () => {
      this.#isEnded = true;
      wake();
    });
    socket.on("close", () => {
      this.#isClosed = true;
      wake();
    });
  }

  async read(buffer: Uint8Array): Promise<number | null> {
    while (true) {
      const bytes = this.#left ?? this.#socket.read() as Buffer | null;
      if (bytes) {
        const part = bytes.subarray(0, buffer.byteLength);
        buffer.set(part);
        this.#left = part.byteLength < bytes.byteLength
          ? bytes.subarray(part.byteLength)
          : undefined;
        return part.byteLength;
      }
      if (this.#isEnded) return null;
      if (this.#isClosed) throw new Deno.errors.ConnectionReset("The client has gone");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  write(bytes: Uint8Array): Promise<number> {
    const piece = bytes.subarray(0, LONGEST_WRITE);
    return new Promise((resolve, reject) => {
      this.#socket.write(piece, (error) => error ? reject(error) : resolve(piece.byteLength));
    });
  }

  closeWrite(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isClosed) return resolve();
      this.#socket.once("close", () => resolve());
      this.#socket.end(resolve);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
