/**
 * What a connection is made of, with TLS or without.
 *
 * @module
 */

/** As much of a `Deno.Conn` as is needed. Everything rejects when the client has gone, or after `close`. */
export interface Socket {
  readonly remoteAddr: Deno.Addr;
  /** Reads into `buffer`. Returns how many bytes; null at the end. */
  read(buffer: Uint8Array): Promise<number | null>;
  /** Returns how many of `bytes`, from the start, have been taken. */
  write(bytes: Uint8Array): Promise<number>;
  /** Tells the client that nothing more comes. */
  closeWrite(): Promise<void>;
  /** Gives the connection up at once, whatever state it is in. */
  close(): void;
}
