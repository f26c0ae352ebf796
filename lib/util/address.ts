/**
 * Parses IP addresses.
 *
 * @module
 */
import { isIP } from "node:net";

/** Maximum length of an address, including zone, brackets and whitespace. */
const MAX_ADDRESS = 128;

/**
 * Returns the address in `text` without brackets and zone, or undefined. An IPv4-mapped IPv6 address
 * becomes IPv4.
 */
export function plainAddress(text: string): string | undefined {
  if (text.length > MAX_ADDRESS) return undefined;
  const [bare = ""] = text.trim().replace(/^\[(.*)\]$/, "$1").toLowerCase().split("%", 1);
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(bare)?.[1];
  const address = mapped ?? bare;
  return isIP(address) === 0 ? undefined : address;
}
