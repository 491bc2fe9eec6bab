# @made
# @how
#
@files

@start
