"""The text that the tiny tokenizers are built on: plain English about code, and Python itself.

Written for this project, so that nothing of other people's text is committed. Words that appear once
only stay out of the WordPiece vocabulary: they are split into pieces.
"""

SENTENCES = """
return the largest number in a list of numbers
sort the list in place and return nothing
read every line of the file and count the words
write the text to a new file and close it
open the file for reading and yield one line at a time
parse the string as a date and raise an error if it is not valid
split the text into words and join the words with a space
find the first match of the pattern in the text
replace every match of the pattern with another string
check whether the two strings are equal
compute the sum of the squares of the numbers
compute the mean and the median of the values
remove every item that is not in the other list
add the item to the end of the queue and wait
take the next item from the queue or wait for one
start a new thread and run the function in it
stop the thread and wait until it is done
send the message to the server and read the answer
connect to the server and send the name of the user
load the model from the disk and check the hash
save the weights of the model to the disk
convert the value to a string before it is printed
copy the tree of files from one folder to another folder
delete the folder and every file in it
walk the tree and visit every node once
insert the key and the value into the table
look up the key in the table and return the value or none
reverse the order of the items in the list
merge two sorted lists into one sorted list
group the items by the value of the key function
print the table with one row for each user
encode the text as bytes and decode the bytes as text
build an index of the words that appear in each document
call the function again when it fails with a timeout
open a connection, send a request, wait for the answer
the quick brown fox jumps over the lazy dog
it was a bright cold day and the clock was striking
we like this film, but the end of it is far too long
a good story, well told, with a warm heart
nobody knows why the old machine stopped working
def add(a, b): return a + b
def first(items): return items[0] if items else None
def count_words(text): return len(text.split())
for i in range(10): print(i)
for key, value in table.items(): print(key, value)
while not queue.empty(): item = queue.get()
if x is None or x == 0: raise ValueError("x is missing")
try: value = int(text) except ValueError: value = None
with open(path) as file: lines = file.readlines()
class Node: def __init__(self, key, left=None, right=None): self.key = key
from os import path; import sys
squares = [x * x for x in numbers if x % 2 == 1]
assert len(result) == len(items), "every item has one result"
yield from walk(node.left); yield node; yield from walk(node.right)
async def fetch(url): return await client.get(url)
lambda x: x + 1
global counter; counter += 1; del cache[key]; pass
""".strip().splitlines()

KEYWORDS = """
False None True and as assert async await break class continue def del elif else except finally for from global if
import in is lambda nonlocal not or pass raise return try while with yield
""".split()

SUFFIXES = "s es ed er ing ly ion tion able ment ness est re al ize".split()
