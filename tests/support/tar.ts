/**
 * Just enough of the ustar format to make image layers that Docker and containerd unpack.
 *
 * @module
 */

/** A regular file of a layer. */
export interface TarFile {
  readonly name: string;
  readonly bytes: Uint8Array;
}

const BLOCK = 512;

/** The header of a regular file of `size` bytes; the name has at most 100 bytes of ASCII. */
export function tarHeader(name: string, size: number): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => header.set(new TextEncoder().encode(text), at);
  const octal = (value: number, length: number) => value.toString(8).padStart(length - 1, "0");
  put(name, 0);
  put(octal(0o644, 8), 100);
  put(octal(0, 8), 108);
  put(octal(0, 8), 116);
  put(octal(size, 12), 124);
  put(octal(0, 12), 136);
  put(" ".repeat(8), 148);
  put("0", 156);
  put("ustar\x0000", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(octal(sum, 7) + "\0 ", 148);
  return header;
}

/** How many zero bytes follow a file of `size` bytes. */
export function tarPadding(size: number): number {
  return (BLOCK - size % BLOCK) % BLOCK;
}

/** The two empty blocks that end an archive, in bytes. */
export const TAR_END = 2 * BLOCK;

/** An archive of regular files. */
export function tarOf(files: readonly TarFile[]): Uint8Array<ArrayBuffer> {
  const size = files.reduce((n, f) => n + BLOCK + f.bytes.length + tarPadding(f.bytes.length), 0);
  const out = new Uint8Array(size + TAR_END);
  let at = 0;
  for (const file of files) {
    out.set(tarHeader(file.name, file.bytes.length), at);
    out.set(file.bytes, at + BLOCK);
    at += BLOCK + file.bytes.length + tarPadding(file.bytes.length);
  }
  return out;
}
