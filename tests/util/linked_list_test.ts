import { assertEquals } from "@std/assert";
import { LinkedList, ListNode } from "../../lib/util/linked_list.ts";

function makeList(...values: string[]) {
  const list = new LinkedList<string>();
  const nodes = values.map((value) => new ListNode(value));
  for (const node of nodes) list.push(node);
  return { list, nodes };
}

function valuesOf(list: LinkedList<string>): string[] {
  const values = [];
  for (let node = list.first; node; node = node.after) values.push(node.value);
  const back = [];
  for (let node = list.last; node; node = node.before) back.push(node.value);
  assertEquals(back.toReversed(), values);
  assertEquals(list.size, values.length);
  return values;
}

Deno.test("a list keeps its order, whichever entries leave it", () => {
  const { list, nodes } = makeList("a", "b", "c", "d");
  const left: string[] = ["a", "b", "c", "d"];
  for (const i of [1, 3, 0, 2]) {
    assertEquals(list.remove(nodes[i]!), true);
    left.splice(left.indexOf(nodes[i]!.value), 1);
    assertEquals(valuesOf(list), left);
  }
  list.push(nodes[2]!);
  assertEquals(valuesOf(list), ["c"]);
});

Deno.test("an entry of no list, or of another one, is removed from none", () => {
  const { list, nodes } = makeList("a", "b");
  const other = makeList("c");
  assertEquals([list.remove(other.nodes[0]!), list.remove(new ListNode("a"))], [false, false]);
  assertEquals([list.remove(nodes[0]!), list.remove(nodes[0]!)], [true, false]);
  assertEquals([valuesOf(list), valuesOf(other.list)], [["b"], ["c"]]);
});
