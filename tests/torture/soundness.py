def problems_in(d):
    return []
