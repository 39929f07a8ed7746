"""The distance of finite networks to their limit, against depth and width ([D21], [Ch25], [CCM26])."""
