"""Give each slice a raw quality with its interval, its scope, and physics measured beside it.

`bundle`, `engine`, `uncertainty`, `scope` and `physics` serve and import no torch; the files of the
network itself (`features`, `efficientnet_v2`, `bridge`, `efficient_kan`, `swin_kat`, `heads`,
`network`, `released`) do.
"""
