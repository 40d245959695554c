"""Give each slice a raw quality with its interval, its scope, and physics measured beside it.

`bundle`, `engine`, `uncertainty`, `scope` and `physics` serve and import no torch; the files of the
network itself (`features`, `bridge`, `efficient_kan`, `swin_kat`, `heads`, `network`) do.
"""
