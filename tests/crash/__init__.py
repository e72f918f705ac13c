"""kill -9 at named commit points and at random, over concurrent uploads; then restart and reconcile.

What clients were told (an acknowledged CLOSE, a 200 for PutObject) is compared with what the restarted server has:
nothing acknowledged may be missing, nothing partial delivered, nothing started or delivered twice, nothing stuck.
"""
