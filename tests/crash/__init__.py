"""kill -9 at named commit points and at random, over concurrent uploads; then restart and reconcile.

What clients were told (an acknowledged CLOSE, a 200 for PutObject) is compared with what the restarted server has:
nothing acknowledged may be missing, nothing partial delivered, nothing started or delivered twice, nothing stuck.

- `pipelines.py`: the stack; `clients.py`: who uploads; `book.py`: what they know;
- `rounds.py`: lives of the server, one a round, and their ends;
- `reconcile.py`: the promises, through the public API, once a life; `ledger.py`: all of them, in the stopped store.
"""
