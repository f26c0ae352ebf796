/**
 * IP addresses as text.
 *
 * @module
 */
import { isIP } from "node:net";

/** No address is longer, its zone, brackets and blanks around it included. */
const MAX_ADDRESS = 128;

/** The address in `text` without brackets and zone, an IPv4 one inside of IPv6 as itself; else undefined. */
export function plainAddress(text: string): string | undefined {
  if (text.length > MAX_ADDRESS) return undefined;
  const [bare = ""] = text.trim().replace(/^\[(.*)\]$/, "$1").toLowerCase().split("%", 1);
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(bare)?.[1];
  const address = mapped ?? bare;
  return isIP(address) === 0 ? undefined : address;
}
