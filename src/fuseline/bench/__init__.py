"""The benchmark that is part of the product: `fuseline bench`, on this machine's or on given servers.

Rooms: `works` is what is done, `flows` the same as workflows, `graphs` the random ones. `floor` is the least code that
keeps the promises, to compare with. `systems` drive one system each, in processes of their own (`child`, `children`).
`rounds` lets them take turns, `results` makes medians of it, `bars` says what must be reached, `page` and `svg` show it.
"""
