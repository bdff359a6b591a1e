"""The object proxy, which callers with a link and containers with an account reach in place of the storage. Each
gateway worker has a listener (`listen`), whose connections (`caller`) carry one request at a time to the `proxy`.
"""
